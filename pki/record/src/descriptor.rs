//! The descriptor of a network: its name, its voters and every parameter of its protocols, signed
//! by its maker. Its hash is the network id, so a node that pins one has pinned them all.

use core::time::Duration;

use bincode::{Decode, Encode};
use keys::{Identity, NetworkId, NodeId, Purpose, Signature, Time};

use crate::canonical::{self, CodecError};
use crate::error::StatementError;
use crate::extension::{self, Extension};
use crate::layout::TRAFFIC_CLASSES;
use crate::parameters::{
    Bounds, Custody, Lists, Mixing, PACES, Parameters, STAGES, Sending, Stage, Timing, whole_millis,
};

/// Octets of a descriptor with its signature, at most.
pub const MAX_DESCRIPTOR: usize = 4096;
/// Voters of a network, and roots, at most.
pub const MAX_VOTERS: usize = 32;

const VERSION: u16 = 3;
const MAX_NAME: usize = 64;
const MAX_BODY: usize = MAX_DESCRIPTOR - Signature::LEN;

/// The nodes that may be routed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Every node with a live record.
    Open,
    /// Every node that a chain of vouches from one of the roots reaches.
    Vouched {
        /// Where chains begin; ascending, at most [`MAX_VOTERS`].
        roots: Vec<NodeId>,
        /// Vouches in a chain, at most.
        depth: u8,
        /// Identities that one node may vouch for.
        fan_out: u16,
    },
}

/// Why octets, or what a network is to be, make no descriptor that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// It is no statement that may be used.
    #[error("{0}")]
    Statement(#[from] StatementError),
    /// A parameter cannot work, alone or beside the others.
    #[error("its {0} cannot work")]
    Parameter(&'static str),
    /// It has a critical field of a later version.
    #[error("it needs the extension {0}, which this version does not know")]
    Extension(u16),
}

impl From<CodecError> for DescriptorError {
    fn from(error: CodecError) -> Self {
        Self::Statement(error.into())
    }
}

/// A verified descriptor.
#[derive(Clone, Debug)]
pub struct Descriptor {
    octets: Vec<u8>,
    id: NetworkId,
    name: String,
    parameters: Parameters,
    voters: Vec<NodeId>,
    admission: Admission,
    extensions: Vec<Extension>,
}

impl Descriptor {
    /// Makes and signs a descriptor. Without any voter the roots vote; an open network must name
    /// some.
    ///
    /// # Errors
    /// As [`Descriptor::parse`] would give for it.
    pub fn create(
        maker: &Identity,
        name: &str,
        created_at: Time,
        parameters: &Parameters,
        voters: &[NodeId],
        admission: &Admission,
    ) -> Result<Self, DescriptorError> {
        let mut voters: Vec<_> = match (voters, admission) {
            ([], Admission::Vouched { roots, .. }) => roots.clone(),
            (voters, _) => voters.to_vec(),
        };
        voters.sort_unstable();
        voters.dedup();
        let body = Body {
            version: VERSION,
            maker: *maker.node().as_bytes(),
            name: name.to_owned(),
            created_at: created_at.as_millis(),
            parameters: ParametersBody::of(parameters),
            voters: voters.iter().map(|voter| *voter.as_bytes()).collect(),
            admission: match admission {
                Admission::Open => AdmissionBody::Open,
                Admission::Vouched { roots, depth, fan_out } => AdmissionBody::Vouched {
                    roots: roots.iter().map(|root| *root.as_bytes()).collect(),
                    depth: *depth,
                    fan_out: *fan_out,
                },
            },
            extensions: Vec::new(),
        };
        Self::parse(&body.sign(maker)?)
    }

    /// Reads and verifies a descriptor.
    ///
    /// # Errors
    /// [`DescriptorError`] says what is wrong with it.
    pub fn parse(octets: &[u8]) -> Result<Self, DescriptorError> {
        if octets.len() > MAX_DESCRIPTOR {
            return Err(StatementError::TooLong.into());
        }
        let (signed, signature) = octets.split_last_chunk().ok_or(StatementError::Malformed)?;
        // The version is read first: a later one has other fields.
        match signed {
            [high, low, ..] if u16::from_be_bytes([*high, *low]) == VERSION => {}
            _ => return Err(StatementError::Unknown.into()),
        }
        let body: Body = canonical::decode::<_, MAX_BODY>(signed)?;
        NodeId::from_bytes(body.maker)
            .verify(
                Purpose::Descriptor,
                &NetworkId::NONE,
                signed,
                &Signature::from_bytes(*signature),
            )
            .map_err(|_| StatementError::BadSignature)?;
        let parameters = body.parameters.parameters();
        let named = (1..=MAX_NAME).contains(&body.name.len())
            && body.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
        if !named || !extension::well_formed(&body.extensions) {
            return Err(StatementError::Malformed.into());
        }
        if let Some(kind) = extension::unknown_critical(&body.extensions, &[Extension::MAILBOXES]) {
            return Err(DescriptorError::Extension(kind));
        }
        parameters.check().map_err(DescriptorError::Parameter)?;
        let voters =
            identities(&body.voters).ok_or(DescriptorError::Parameter("list of voters"))?;
        let admission = body.admission.checked()?;
        Ok(Self {
            octets: octets.to_vec(),
            id: NetworkId::from_bytes(*blake3::hash(octets).as_bytes()),
            name: body.name,
            parameters,
            voters,
            admission,
            extensions: body.extensions,
        })
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

    /// The nodes whose votes make the list of each hour; ascending, 1 to [`MAX_VOTERS`].
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// The nodes that may be routed through.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Fields of later versions.
    #[must_use]
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }
}

#[derive(Encode, Decode)]
struct Body {
    version: u16,
    maker: [u8; 32],
    name: String,
    created_at: u64,
    parameters: ParametersBody,
    voters: Vec<[u8; 32]>,
    admission: AdmissionBody,
    extensions: Vec<Extension>,
}

impl Body {
    fn sign(&self, maker: &Identity) -> Result<Vec<u8>, CodecError> {
        let mut octets = canonical::encode::<MAX_BODY>(self)?;
        let signature = maker.sign(Purpose::Descriptor, &NetworkId::NONE, &octets);
        octets.extend_from_slice(signature.as_bytes());
        Ok(octets)
    }
}

#[derive(Encode, Decode)]
struct ParametersBody {
    /// Milliseconds, in the order of [`Parameters::spans`].
    spans: [u64; Parameters::SPANS],
    first: u16,
    fewest: u16,
    relay_probation: u16,
    exit_probation: u16,
    strangers: u32,
    newcomers: u32,
    word_epochs: u32,
    strategy: u8,
    floor: u8,
    floor_windows: u8,
    loop_budget: u8,
    pace_from: [u16; PACES - 1],
    health_loops: u8,
    health_loss: u8,
    health_share: u8,
    cover: u8,
    attempts: u8,
    fragment_attempts: u8,
    stages: [StageBody; STAGES],
}

#[derive(Encode, Decode)]
struct StageBody {
    from: u32,
    weights: [u8; TRAFFIC_CLASSES],
    returning: u8,
}

impl ParametersBody {
    fn of(parameters: &Parameters) -> Self {
        let mut spans = parameters.clone();
        let Parameters { lists, bounds, mixing, sending, custody, stages, .. } = parameters;
        Self {
            spans: spans.spans().map(|span| whole_millis(*span)),
            first: lists.first,
            fewest: lists.fewest,
            relay_probation: lists.relay_probation,
            exit_probation: lists.exit_probation,
            strangers: bounds.strangers,
            newcomers: bounds.newcomers,
            word_epochs: bounds.word_epochs,
            strategy: mixing.strategy,
            floor: mixing.floor,
            floor_windows: mixing.floor_windows,
            loop_budget: mixing.loop_budget,
            pace_from: sending.pace_from,
            health_loops: sending.health_loops,
            health_loss: sending.health_loss,
            health_share: sending.health_share,
            cover: sending.cover,
            attempts: custody.attempts,
            fragment_attempts: custody.fragment_attempts,
            stages: stages.clone().map(|Stage { from, weights, returning }| StageBody {
                from,
                weights,
                returning,
            }),
        }
    }

    fn parameters(&self) -> Parameters {
        let zero = Duration::ZERO;
        let mut parameters = Parameters {
            timing: Timing { epoch: zero, grace: zero, early: zero },
            lists: Lists {
                lead: zero,
                settle: zero,
                late: zero,
                keep: zero,
                first: self.first,
                fewest: self.fewest,
                relay_probation: self.relay_probation,
                exit_probation: self.exit_probation,
            },
            bounds: Bounds {
                spacing: zero,
                strangers: self.strangers,
                newcomers: self.newcomers,
                word_epochs: self.word_epochs,
            },
            mixing: Mixing {
                mean_delay: zero,
                max_delay: zero,
                window: zero,
                transit: zero,
                strategy: self.strategy,
                floor: self.floor,
                floor_windows: self.floor_windows,
                loop_budget: self.loop_budget,
            },
            sending: Sending {
                max_hold: zero,
                longest_hold: zero,
                gaps: [zero; PACES],
                pace_from: self.pace_from,
                decoy_gap: zero,
                first_hop: zero,
                health_loops: self.health_loops,
                health_loss: self.health_loss,
                health_share: self.health_share,
                cover: self.cover,
            },
            custody: Custody {
                horizon: zero,
                apart: zero,
                attempts: self.attempts,
                fragment_attempts: self.fragment_attempts,
            },
            stages: self.stages.each_ref().map(|stage| Stage {
                from: stage.from,
                weights: stage.weights,
                returning: stage.returning,
            }),
        };
        for (span, millis) in parameters.spans().into_iter().zip(self.spans) {
            // Ten years are above every bound and leave room to add and multiply.
            *span = Duration::from_millis(millis.min(10 * 366 * 24 * 3_600_000));
        }
        parameters
    }
}

#[derive(Encode, Decode)]
enum AdmissionBody {
    Open,
    Vouched { roots: Vec<[u8; 32]>, depth: u8, fan_out: u16 },
}

impl AdmissionBody {
    fn checked(self) -> Result<Admission, DescriptorError> {
        match self {
            Self::Open => Ok(Admission::Open),
            Self::Vouched { roots, depth, fan_out } => {
                let roots =
                    identities(&roots).ok_or(DescriptorError::Parameter("list of roots"))?;
                if depth == 0 || fan_out == 0 {
                    return Err(DescriptorError::Parameter("depth or fan-out"));
                }
                Ok(Admission::Vouched { roots, depth, fan_out })
            }
        }
    }
}

/// The octets of a descriptor whatever its parameters, with a critical extension of this kind, if
/// any.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn unchecked(
    maker: &Identity,
    parameters: &Parameters,
    critical: Option<u16>,
) -> Option<Vec<u8>> {
    let extension = |kind| Extension { kind, critical: true, value: Vec::new() };
    let body = Body {
        version: VERSION,
        maker: *maker.node().as_bytes(),
        name: "testing".to_owned(),
        created_at: 1,
        parameters: ParametersBody::of(parameters),
        voters: vec![*maker.node().as_bytes()],
        admission: AdmissionBody::Open,
        extensions: critical.map(extension).into_iter().collect(),
    };
    body.sign(maker).ok()
}

/// 1 to [`MAX_VOTERS`] keys that may sign, ascending.
fn identities(octets: &[[u8; 32]]) -> Option<Vec<NodeId>> {
    let counted = (1..=MAX_VOTERS).contains(&octets.len());
    let ascending = octets.is_sorted_by(|first, second| first < second);
    let nodes: Vec<_> = octets.iter().copied().map(NodeId::from_bytes).collect();
    let are_keys = nodes.iter().all(|node| node.check().is_ok());
    (counted && ascending && are_keys).then_some(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKER: [u8; 32] = [5; 32];

    fn made(parameters: &Parameters) -> Result<Descriptor, DescriptorError> {
        let maker = Identity::from_seed(&MAKER);
        let (at, voters) = (Time::from_millis(1), [maker.node()]);
        Descriptor::create(&maker, "devnet", at, parameters, &voters, &Admission::Open)
    }

    fn devnet(speed: u32) -> Descriptor {
        made(&Parameters::scaled(speed, 7)).unwrap()
    }

    #[test]
    fn what_was_signed_is_read_again() {
        let made = devnet(100);
        let read = Descriptor::parse(made.octets()).unwrap();
        assert_eq!(read.id(), made.id());
        assert_eq!(read.parameters(), &Parameters::scaled(100, 7));
        assert_ne!(devnet(101).id(), made.id());
        assert_eq!(read.voters(), [Identity::from_seed(&MAKER).node()]);
    }

    #[test]
    fn every_speed_makes_a_valid_network() {
        for speed in [1, 2, 5, 60, 100, 540, 1000, 10_000] {
            let made = devnet(speed);
            assert_eq!(made.parameters(), &Parameters::scaled(speed, 7), "{speed}");
        }
    }

    #[test]
    fn parameters_that_cannot_work_are_named() {
        let refused = |change: &dyn Fn(&mut Parameters)| {
            let mut parameters = Parameters::main();
            change(&mut parameters);
            made(&parameters).err().map(|why| why.to_string())
        };
        let because = |name: &str| Some(format!("its {name} cannot work"));
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(refused(&|_| {}), None);
        assert_eq!(refused(&|p| p.mixing.max_delay = day), because("longest delay"));
        assert_eq!(refused(&|p| p.lists.settle = p.timing.epoch), because("lead and settle"));
        assert_eq!(refused(&|p| p.lists.keep = day), because("keep"));
        assert_eq!(refused(&|p| p.mixing.strategy = 9), because("strategy"));
        assert_eq!(refused(&|p| p.mixing.loop_budget = 9), because("loop budget"));
        assert_eq!(refused(&|p| p.sending.cover = 101), because("cover"));
        let dense = Duration::from_millis(49);
        assert_eq!(refused(&|p| p.sending.gaps[3] = dense), because("gaps"));
        let many = |p: &mut Parameters| {
            p.sending.gaps[3] = Duration::from_millis(50);
            (p.sending.max_hold, p.sending.longest_hold) = (day, day);
        };
        assert_eq!(refused(&many), because("gaps"));
        assert_eq!(refused(&|p| p.lists.fewest = 3), because("fewest nodes"));
        assert_eq!(refused(&|p| p.stages[1].weights[0] = 0), because("weights of classes"));
        assert_eq!(refused(&|p| p.bounds.spacing = Duration::ZERO), because("spacing"));
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Each bound on a parameter of the main network, alone: what is on it is taken, and the next step beyond
    /// it is refused by its name.
    #[test]
    fn each_parameter_has_its_bounds() {
        type Change = fn(&mut Parameters, u64);
        let day = 24 * 3_600_000;
        let hour = 3_600_000;
        let main = Parameters::main();
        let of = |span: Duration| u64::try_from(span.as_millis()).unwrap();
        let (window, settle) = (of(main.lists.lead), of(main.lists.settle));
        let gaps = main.sending.gaps.map(of);
        let bounds: &[(&'static str, Change, &[u64], &[u64])] = &[
            ("grace", |p, to| p.timing.grace = ms(to), &[hour], &[0, day + 1]),
            ("early", |p, to| p.timing.early = ms(to), &[hour], &[0, day + 1]),
            (
                "grace and early",
                |p, to| p.timing.grace = p.timing.epoch - p.timing.early - ms(to),
                &[1],
                &[0],
            ),
            ("epoch", |p, to| p.timing.epoch += ms(to), &[0], &[1, 2]),
            ("lead", |p, to| p.lists.lead = ms(to), &[1, window], &[0]),
            ("settle", |p, to| p.lists.settle = ms(to), &[settle], &[0]),
            (
                "lead and settle",
                |p, to| p.lists.lead = p.timing.epoch / 3 * 8 / 10 - p.lists.settle + ms(to),
                &[0],
                &[1],
            ),
            ("late", |p, to| p.lists.late = ms(to), &[1, settle], &[0, settle + 1]),
            ("keep", |p, to| p.lists.keep = ms(to), &[hour, 6 * hour], &[hour - 1, 6 * hour + 1]),
            ("fewest nodes", |p, to| p.lists.fewest = to as u16, &[4], &[3]),
            (
                "probation",
                |p, to| (p.lists.relay_probation, p.lists.exit_probation) = (to as u16, 5),
                &[5],
                &[6],
            ),
            ("spacing", |p, to| p.bounds.spacing = ms(to), &[1, hour / 3], &[0, hour / 3 + 1]),
            ("newcomers", |p, to| p.bounds.newcomers = to as u32, &[1, 10_000], &[0, 10_001]),
            ("strangers", |p, to| p.bounds.strangers = to as u32, &[1, 10_000], &[0, 10_001]),
            ("life of a word", |p, to| p.bounds.word_epochs = to as u32, &[1, 720], &[0, 721]),
            ("mean delay", |p, to| p.mixing.mean_delay = ms(to), &[1, 600_000], &[0, day + 1]),
            (
                "longest delay",
                |p, to| p.mixing.max_delay = ms(to),
                &[30_000, 3 * hour],
                &[29_999, 3 * hour + 1],
            ),
            ("window", |p, to| p.mixing.window = ms(to), &[1, 3 * hour], &[0, 3 * hour + 1]),
            ("transit", |p, to| p.mixing.transit = ms(to), &[1, 3 * hour], &[0, 3 * hour + 1]),
            ("strategy", |p, to| p.mixing.strategy = to as u8, &[0, 3], &[4]),
            ("batch floor", |p, to| p.mixing.floor = to as u8, &[1, 64], &[0, 65]),
            ("windows of the floor", |p, to| p.mixing.floor_windows = to as u8, &[0, 16], &[17]),
            ("loop budget", |p, to| p.mixing.loop_budget = to as u8, &[10], &[9]),
            ("hold", |p, to| p.sending.max_hold = ms(to), &[1], &[0]),
            (
                "longest hold",
                |p, to| p.sending.longest_hold = ms(to),
                &[20 * 60_000, day],
                &[20 * 60_000 - 1, day + 1],
            ),
            ("gaps", |p, to| p.sending.gaps[0] = ms(to), &[gaps[1], day], &[gaps[1] - 1, day + 1]),
            ("paces", |p, to| p.sending.pace_from[0] = to as u16, &[0], &[u64::from(u16::MAX)]),
            (
                "paces",
                |p, to| p.sending.pace_from[1] = p.sending.pace_from[0] + to as u16,
                &[1],
                &[0],
            ),
            ("decoys", |p, to| p.sending.decoy_gap = ms(to), &[1000, day], &[999, day + 1]),
            ("first hop", |p, to| p.sending.first_hop = ms(to), &[1, 365 * day], &[0, 367 * day]),
            ("health", |p, to| p.sending.health_loops = to as u8, &[1], &[0]),
            ("health", |p, to| p.sending.health_loss = to as u8, &[0, 100], &[101]),
            ("share of excluded nodes", |p, to| p.sending.health_share = to as u8, &[0, 50], &[51]),
            ("cover", |p, to| p.sending.cover = to as u8, &[0, 100], &[101]),
            ("horizon", |p, to| p.custody.horizon = ms(to), &[day], &[0, day + 1]),
            (
                "gap of attempts",
                |p, to| p.custody.apart = ms(to),
                &[1, 6 * hour],
                &[0, 6 * hour + 1],
            ),
            ("attempts", |p, to| p.custody.attempts = to as u8, &[1, 16], &[0, 17]),
            (
                "attempts of fragments",
                |p, to| p.custody.fragment_attempts = to as u8,
                &[1, 16],
                &[0, 17],
            ),
            ("stages", |p, to| p.stages[0].from = to as u32, &[0], &[1]),
            ("stages", |p, to| p.stages[2].from = p.stages[1].from + to as u32, &[1], &[0]),
            ("returning share", |p, to| p.stages[2].returning = to as u8, &[1, 99], &[0, 100]),
            ("weights of classes", |p, to| p.stages[0].weights[1] = 50 + to as u8, &[10], &[9, 11]),
        ];
        for (name, change, taken, refused) in bounds {
            let with = |to: u64| {
                let mut parameters = Parameters::main();
                change(&mut parameters, to);
                made(&parameters).err()
            };
            for to in *taken {
                assert_eq!(with(*to), None, "{name} of {to}");
            }
            for to in *refused {
                assert_eq!(with(*to), Some(DescriptorError::Parameter(name)), "{name} of {to}");
            }
        }
        let mut empty = main.clone();
        (empty.stages[0].weights[1], empty.stages[0].weights[8]) = (70, 0);
        assert_eq!(made(&empty).err(), Some(DescriptorError::Parameter("largest class")));
    }

    #[test]
    fn a_critical_field_of_a_later_version_is_named_and_any_other_is_kept() {
        let maker = Identity::from_seed(&MAKER);
        let with = |kind, critical| {
            let known = devnet(100);
            let (signed, _) = known.octets().split_last_chunk::<64>().unwrap();
            let mut body: Body = canonical::decode::<_, MAX_BODY>(signed).unwrap();
            body.extensions = vec![Extension { kind, critical, value: vec![7] }];
            Descriptor::parse(&body.sign(&maker).unwrap())
        };
        assert_eq!(with(9, true).unwrap_err(), DescriptorError::Extension(9));
        assert_eq!(with(9, false).unwrap().extensions().len(), 1);
        assert_eq!(with(Extension::MAILBOXES, true).unwrap().extensions().len(), 1);
    }

    #[test]
    fn every_network_has_voters() {
        let maker = Identity::from_seed(&MAKER);
        let parameters = Parameters::main();
        let at = Time::from_millis(1);
        let none = Descriptor::create(&maker, "n", at, &parameters, &[], &Admission::Open);
        assert_eq!(none.unwrap_err(), DescriptorError::Parameter("list of voters"));
        let roots = vec![maker.node()];
        let rule = Admission::Vouched { roots: roots.clone(), depth: 2, fan_out: 2 };
        let vouched = Descriptor::create(&maker, "n", at, &parameters, &[], &rule).unwrap();
        assert_eq!(vouched.voters(), roots);
    }

    /// What becomes of a descriptor whose body was changed before its maker signed it.
    fn signed_after(change: &dyn Fn(&mut Body)) -> Result<Descriptor, DescriptorError> {
        let known = devnet(100);
        let (signed, _) = known.octets().split_last_chunk::<64>().unwrap();
        let mut body: Body = canonical::decode::<_, MAX_BODY>(signed).unwrap();
        change(&mut body);
        Descriptor::parse(&body.sign(&Identity::from_seed(&MAKER)).unwrap())
    }

    #[test]
    fn what_no_honest_maker_signs_is_refused() {
        let (malformed, unknown) =
            (StatementError::Malformed.into(), StatementError::Unknown.into());
        assert_eq!(signed_after(&|_| {}).unwrap().name(), "devnet");
        assert_eq!(signed_after(&|body| body.version += 1).unwrap_err(), unknown);
        let named = |name: &str| signed_after(&|body| body.name = name.to_owned()).map(|_| ());
        assert_eq!(named(&"x".repeat(64)), Ok(()));
        assert_eq!(named("a-b.C9"), Ok(()));
        for bad in ["", &"x".repeat(65), "a b", "a/b", "a\u{1b}", "\u{e4}"] {
            assert_eq!(named(bad), Err(malformed), "{bad:?}");
        }
        let extended = |kinds: &[u16]| {
            let extension = |kind: &u16| Extension { kind: *kind, critical: false, value: vec![] };
            signed_after(&|body| body.extensions = kinds.iter().map(extension).collect())
                .map(|_| ())
        };
        assert_eq!(extended(&[3, 4]), Ok(()));
        assert_eq!(extended(&[4, 3]), Err(malformed));
        let voters = |seeds: &[u8]| {
            let node = |seed: &u8| *Identity::from_seed(&[*seed; 32]).node().as_bytes();
            let mut voters: Vec<_> = seeds.iter().map(node).collect();
            voters.sort_unstable();
            voters
        };
        let of =
            |voters: Vec<[u8; 32]>| signed_after(&|body| body.voters = voters.clone()).map(|_| ());
        let because = Err(DescriptorError::Parameter("list of voters"));
        let all: Vec<u8> = (1..=33).collect();
        assert_eq!(of(voters(&all[..32])), Ok(()));
        assert_eq!(of(voters(&all)), because, "too many");
        assert_eq!(of(voters(&[1, 1])), because, "one twice");
        assert_eq!(of(voters(&[1, 2]).into_iter().rev().collect()), because, "in another order");
        assert_eq!(of(vec![[2; 32]]), because, "no key");
        let vouched = |depth, fan_out| {
            let roots = voters(&[1]);
            let rule = |body: &mut Body| {
                let roots = roots.clone();
                body.admission = AdmissionBody::Vouched { roots, depth, fan_out };
            };
            signed_after(&rule).map(|_| ())
        };
        assert_eq!(vouched(1, 1), Ok(()));
        let because = Err(DescriptorError::Parameter("depth or fan-out"));
        assert_eq!((vouched(0, 1), vouched(1, 0)), (because, because));
    }

    #[test]
    fn a_test_may_have_any_parameters_signed() {
        let maker = Identity::from_seed(&MAKER);
        let parameters = Parameters::main();
        let made =
            Descriptor::parse(&crate::testing::descriptor(&maker, &parameters, None)).unwrap();
        assert_eq!((made.parameters(), made.name()), (&parameters, "testing"));
        let critical = crate::testing::descriptor(&maker, &parameters, Some(9));
        assert_eq!(Descriptor::parse(&critical).unwrap_err(), DescriptorError::Extension(9));
        let mut odd = parameters;
        odd.sending.cover = 101;
        let odd = Descriptor::parse(&crate::testing::descriptor(&maker, &odd, None));
        assert_eq!(odd.unwrap_err(), DescriptorError::Parameter("cover"));
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
        let long = Descriptor::parse(&[0; 5000]).unwrap_err();
        assert_eq!(long, StatementError::TooLong.into());
    }
}
