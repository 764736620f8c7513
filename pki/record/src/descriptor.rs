//! The descriptor of a network: its name and every parameter of its protocols, signed by its maker.
//! Its hash is the network id, so a node that pins one has pinned them all.

use core::time::Duration;

use bincode::{Decode, Encode};
use keys::{Identity, NetworkId, NodeId, Purpose, Signature, Time};

use crate::canonical;
use crate::error::StatementError;
use crate::parameters::{Mixing, Parameters, Sending, Timing, Views, whole_millis};

/// Octets of a descriptor with its signature, at most.
pub const MAX_DESCRIPTOR: usize = 4096;

const VERSION: u16 = 1;
const MAX_NAME: usize = 64;
const MAX_ROOTS: usize = 32;
const MAX_BODY: usize = MAX_DESCRIPTOR - Signature::LEN;

/// The nodes that may be routed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Every node with a live record.
    Open,
    /// Every node that a chain of vouches from one of the roots reaches.
    Vouched {
        /// Where chains begin; ascending.
        roots: Vec<NodeId>,
        /// Vouches in a chain, at most.
        depth: u8,
        /// Identities that one node may vouch for.
        fan_out: u16,
    },
}

/// A verified descriptor.
#[derive(Clone, Debug)]
pub struct Descriptor {
    octets: Vec<u8>,
    id: NetworkId,
    name: String,
    parameters: Parameters,
    admission: Admission,
}

impl Descriptor {
    /// Makes and signs a descriptor.
    ///
    /// # Errors
    /// As [`Descriptor::parse`] would give for it.
    pub fn create(
        maker: &Identity,
        name: &str,
        created_at: Time,
        parameters: &Parameters,
        admission: &Admission,
    ) -> Result<Self, StatementError> {
        let body = Body {
            version: VERSION,
            maker: *maker.node().as_bytes(),
            name: name.to_owned(),
            created_at: created_at.as_millis(),
            times: Times::of(parameters),
            first_view: parameters.views.first_view,
            admission: match admission {
                Admission::Open => AdmissionBody::Open,
                Admission::Vouched { roots, depth, fan_out } => AdmissionBody::Vouched {
                    roots: roots.iter().map(|root| *root.as_bytes()).collect(),
                    depth: *depth,
                    fan_out: *fan_out,
                },
            },
        };
        let mut octets = canonical::encode::<MAX_BODY>(&body)?;
        let signature = maker.sign(Purpose::Descriptor, &NetworkId::NONE, &octets);
        octets.extend_from_slice(signature.as_bytes());
        Self::parse(&octets)
    }

    /// Reads and verifies a descriptor.
    ///
    /// # Errors
    /// `TooLong`, `Malformed`, `NotCanonical`, `Unknown` or `BadSignature`.
    pub fn parse(octets: &[u8]) -> Result<Self, StatementError> {
        if octets.len() > MAX_DESCRIPTOR {
            return Err(StatementError::TooLong);
        }
        let (signed, signature) = octets.split_last_chunk().ok_or(StatementError::Malformed)?;
        let body: Body = canonical::decode::<_, MAX_BODY>(signed)?;
        if body.version != VERSION {
            return Err(StatementError::Unknown);
        }
        NodeId::from_bytes(body.maker)
            .verify(
                Purpose::Descriptor,
                &NetworkId::NONE,
                signed,
                &Signature::from_bytes(*signature),
            )
            .map_err(|_| StatementError::BadSignature)?;
        let parameters = body.times.parameters(body.first_view);
        let admission = body.admission.checked().ok_or(StatementError::Malformed)?;
        let named = (1..=MAX_NAME).contains(&body.name.len())
            && body.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
        if !named || !parameters.well_formed() {
            return Err(StatementError::Malformed);
        }
        let id = NetworkId::from_bytes(*blake3::hash(octets).as_bytes());
        Ok(Self { octets: octets.to_vec(), id, name: body.name, parameters, admission })
    }

    /// The octets, signature included.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// BLAKE3 of the octets.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.id
    }

    /// The network's name: letters, digits, `-` and `.`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Times and counts.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The nodes that may be routed through.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }
}

#[derive(Encode, Decode)]
struct Body {
    version: u16,
    maker: [u8; 32],
    name: String,
    created_at: u64,
    times: Times,
    first_view: u16,
    admission: AdmissionBody,
}

/// Milliseconds.
#[derive(Encode, Decode)]
struct Times {
    epoch: u64,
    grace: u64,
    early: u64,
    settle: u64,
    mean_delay: u64,
    max_delay: u64,
    window: u64,
    transit: u64,
    mean_hold: u64,
    mean_send: u64,
}

impl Times {
    fn of(parameters: &Parameters) -> Self {
        let Parameters { timing, views, mixing, sending } = parameters;
        Self {
            epoch: whole_millis(timing.epoch),
            grace: whole_millis(timing.grace),
            early: whole_millis(timing.early),
            settle: whole_millis(views.settle),
            mean_delay: whole_millis(mixing.mean_delay),
            max_delay: whole_millis(mixing.max_delay),
            window: whole_millis(mixing.window),
            transit: whole_millis(mixing.transit),
            mean_hold: whole_millis(sending.mean_hold),
            mean_send: whole_millis(sending.mean_send),
        }
    }

    fn parameters(&self, first_view: u16) -> Parameters {
        // A year is above every bound and leaves room to add and multiply.
        let span = |millis: u64| Duration::from_millis(millis.min(366 * 24 * 3_600_000));
        Parameters {
            timing: Timing {
                epoch: span(self.epoch),
                grace: span(self.grace),
                early: span(self.early),
            },
            views: Views { settle: span(self.settle), first_view },
            mixing: Mixing {
                mean_delay: span(self.mean_delay),
                max_delay: span(self.max_delay),
                window: span(self.window),
                transit: span(self.transit),
            },
            sending: Sending { mean_hold: span(self.mean_hold), mean_send: span(self.mean_send) },
        }
    }
}

#[derive(Encode, Decode)]
enum AdmissionBody {
    Open,
    Vouched { roots: Vec<[u8; 32]>, depth: u8, fan_out: u16 },
}

impl AdmissionBody {
    fn checked(self) -> Option<Admission> {
        match self {
            Self::Open => Some(Admission::Open),
            Self::Vouched { roots, depth, fan_out } => {
                let ascending = roots.iter().zip(roots.iter().skip(1)).all(|(a, b)| a < b);
                let counted = (1..=MAX_ROOTS).contains(&roots.len()) && depth > 0 && fan_out > 0;
                let roots: Vec<_> = roots.into_iter().map(NodeId::from_bytes).collect();
                let are_keys = roots.iter().all(|root| root.check().is_ok());
                (ascending && counted && are_keys).then_some(Admission::Vouched {
                    roots,
                    depth,
                    fan_out,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devnet(speed: u32) -> Descriptor {
        let maker = Identity::from_seed(&[5; 32]);
        let parameters = Parameters::scaled(speed, 7);
        Descriptor::create(&maker, "devnet", Time::from_millis(1), &parameters, &Admission::Open)
            .unwrap()
    }

    #[test]
    fn what_was_signed_is_read_again() {
        let made = devnet(100);
        let read = Descriptor::parse(made.octets()).unwrap();
        assert_eq!(read.id(), made.id());
        assert_eq!(read.parameters(), &Parameters::scaled(100, 7));
        assert_ne!(devnet(101).id(), made.id());
    }

    #[test]
    fn every_speed_makes_a_valid_network() {
        for speed in [1, 2, 5, 60, 100, 540, 1000, 10_000] {
            assert_eq!(devnet(speed).parameters().views.first_view, 7, "{speed}");
        }
    }

    #[test]
    fn any_altered_octet_is_refused() {
        let made = devnet(100);
        for at in 0..made.octets().len() {
            let mut altered = made.octets().to_vec();
            altered[at] ^= 1;
            assert!(Descriptor::parse(&altered).is_err(), "octet {at}");
        }
        assert!(Descriptor::parse(&[made.octets(), &[0]].concat()).is_err());
        assert_eq!(Descriptor::parse(&[0; 5000]).unwrap_err(), StatementError::TooLong);
    }
}
