//! The descriptor of a network: its name and every parameter of its protocols, signed by who made it.
//! Its hash is the network id, so a node that pins one has pinned them all.

use core::time::Duration;

use bincode::{Decode, Encode};
use keys::{Identity, NetworkId, NodeId, Purpose, Schedule, Signature, Time};

use crate::canonical;
use crate::record::StatementError;

/// Octets of a descriptor with its signature, at most.
pub const MAX_DESCRIPTOR: usize = 4096;

const VERSION: u16 = 1;
const MAX_NAME: usize = 64;
const MAX_ROOTS: usize = 32;
const MAX_BODY: usize = MAX_DESCRIPTOR - Signature::LEN;

/// Times and counts of the protocols. They are the network's: no node has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Length of an epoch.
    pub epoch: Duration,
    /// How long after its epoch a mix key is still accepted.
    pub grace: Duration,
    /// How long before its epoch a mix key is already accepted.
    pub early: Duration,
    /// How old a record must be on the hour to be in that hour's view.
    pub settle: Duration,
    /// Mean of the exponential delay that a sender draws for each hop.
    pub mean_delay: Duration,
    /// Longest delay drawn.
    pub max_delay: Duration,
    /// Length of the window in which a node collects packets before it shuffles them.
    pub window: Duration,
    /// What a sender allows for each hop beside the drawn delay when it plans an arrival.
    pub transit: Duration,
    /// Mean of the exponential time for which an ingress holds a mail first.
    pub mean_hold: Duration,
    /// Mean gap of the Poisson clock on which a node's own packets leave.
    pub mean_send: Duration,
    /// In a network just started, the first view is taken as soon as this many nodes are known;
    /// 0: on the hour.
    pub first_view: u16,
}

impl Parameters {
    /// The main network's.
    #[must_use]
    pub const fn main() -> Self {
        const MINUTE: u64 = 60;
        Self {
            epoch: Duration::from_secs(180 * MINUTE),
            grace: Duration::from_secs(30 * MINUTE),
            early: Duration::from_secs(10 * MINUTE),
            settle: Duration::from_secs(10 * MINUTE),
            mean_delay: Duration::from_secs(20),
            max_delay: Duration::from_secs(10 * MINUTE),
            window: Duration::from_secs(30),
            transit: Duration::from_secs(30),
            mean_hold: Duration::from_secs(5 * MINUTE),
            mean_send: Duration::from_secs(10),
            first_view: 0,
        }
    }

    /// Those of a test network: every time divided by `speed`, but an epoch is never under 20 s, the
    /// grace never under 5 s, and the early acceptance never under 2 s.
    #[must_use]
    pub fn scaled(speed: u32, first_view: u16) -> Self {
        let speed = speed.max(1);
        let scale = |span: Duration| Duration::from_millis(whole_millis(span) / u64::from(speed));
        let main = Self::main();
        Self {
            epoch: scale(main.epoch).max(MIN_EPOCH),
            grace: scale(main.grace).max(MIN_GRACE),
            early: scale(main.early).max(MIN_EARLY),
            settle: scale(main.settle),
            mean_delay: scale(main.mean_delay),
            max_delay: scale(main.max_delay),
            window: scale(main.window),
            transit: scale(main.transit),
            mean_hold: scale(main.mean_hold),
            mean_send: scale(main.mean_send),
            first_view,
        }
    }

    /// When epochs and hours begin.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::new(self.epoch, self.grace, self.early)
    }

    /// Bounds that keep every sum of these times representable and every timer above a millisecond.
    fn well_formed(&self) -> bool {
        let day = Duration::from_secs(24 * 3600);
        let within = |span: Duration, low: Duration| low <= span && span <= day;
        let tick = Duration::from_millis(1);
        within(self.epoch, MIN_EPOCH)
            && within(self.grace, MIN_GRACE)
            && within(self.early, MIN_EARLY)
            && self.grace + self.early < self.epoch
            && self.settle * 4 <= self.epoch
            && within(self.mean_delay, tick)
            && within(self.max_delay, self.mean_delay)
            && within(self.window, tick)
            && within(self.transit, tick)
            && within(self.mean_hold, tick)
            && within(self.mean_send, tick)
    }
}

const MIN_EPOCH: Duration = Duration::from_secs(20);
const MIN_GRACE: Duration = Duration::from_secs(5);
const MIN_EARLY: Duration = Duration::from_secs(2);

/// Who may be routed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Everybody with a live record.
    Open,
    /// Who is vouched for along a chain from one of the roots.
    Vouched {
        /// Where chains begin; ascending.
        roots: Vec<NodeId>,
        /// Vouches in a chain, at most.
        depth: u8,
        /// Identities that one may vouch for.
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
            first_view: parameters.first_view,
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

    /// Who may be routed through.
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
        Self {
            epoch: whole_millis(parameters.epoch),
            grace: whole_millis(parameters.grace),
            early: whole_millis(parameters.early),
            settle: whole_millis(parameters.settle),
            mean_delay: whole_millis(parameters.mean_delay),
            max_delay: whole_millis(parameters.max_delay),
            window: whole_millis(parameters.window),
            transit: whole_millis(parameters.transit),
            mean_hold: whole_millis(parameters.mean_hold),
            mean_send: whole_millis(parameters.mean_send),
        }
    }

    fn parameters(&self, first_view: u16) -> Parameters {
        // A year is above every bound and leaves room to add and multiply.
        let span = |millis: u64| Duration::from_millis(millis.min(366 * 24 * 3_600_000));
        Parameters {
            epoch: span(self.epoch),
            grace: span(self.grace),
            early: span(self.early),
            settle: span(self.settle),
            mean_delay: span(self.mean_delay),
            max_delay: span(self.max_delay),
            window: span(self.window),
            transit: span(self.transit),
            mean_hold: span(self.mean_hold),
            mean_send: span(self.mean_send),
            first_view,
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

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
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
            assert_eq!(devnet(speed).parameters().first_view, 7, "{speed}");
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
