//! The configuration file: turns TOML into validated settings.
//!
//! Unknown keys are refused, with the nearest known one named: a misspelt key that is ignored is a
//! setting that its operator believes to be in force. `examples/deploy/fog.toml` names every key.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use keys::OnionAddress;
use mail::Mailbox;
use record::Domains;
use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;

use crate::exit::Target;
use crate::failure::{Failure, FailureKind};
use crate::net::tor::{Mode, TorSettings};

/// All keys of the configuration.
const KEYS: [&str; 15] = [
    "network.id",
    "network.bootstrap",
    "network.devnet",
    "network.speed",
    "smtp.listen",
    "exit.deliver",
    "exit.domains",
    "exit.from",
    "operator.contact",
    "operator.family",
    "log.level",
    "tor.mode",
    "tor.control",
    "tor.socks",
    "tor.listen",
];

/// The From of mail whose sender did not ask for another, if nothing else is said.
const DEFAULT_FROM: &str = "anonymous@fog.invalid";
const DEFAULT_LISTEN: &str = "127.0.0.1:2525";
/// Where an onion service's streams arrive if Tor's operator configures it.
pub(crate) const DEFAULT_TOR_LISTEN: &str = "127.0.0.1:9998";
/// Octets of a contact, at most, as in a record.
const MAX_CONTACT: usize = 128;
const MAX_FAMILY: usize = 16;

/// The settings of a node.
#[derive(Debug)]
pub struct Config {
    /// The network's id in hex, if it is to be checked.
    pub network: Option<String>,
    /// Nodes to join through.
    pub bootstrap: Vec<OnionAddress>,
    /// The folder of a devnet.
    pub devnet: Option<PathBuf>,
    /// The devnet's speed, if it is to be checked.
    pub speed: Option<u32>,
    /// Where mail is submitted.
    pub listen: SocketAddr,
    /// Where the node delivers mail, if it is an exit.
    pub deliver: Option<Target>,
    /// The recipient domains that an exit delivers to.
    pub domains: Domains,
    /// The From of mail whose sender did not ask for another.
    pub from: Mailbox,
    /// How to reach the operator.
    pub contact: String,
    /// The operator's other nodes.
    pub family: Vec<OnionAddress>,
    /// The level of the log.
    pub level: LevelFilter,
    /// How the node gets a Tor.
    pub tor: TorSettings,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// One line with file, key and cause.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::new(FailureKind::Usage, format!("{}: {error}", path.display()))
                .remedy("make one with: fog init")
        })?;
        Self::parse(&text).map_err(|problem| {
            let failure =
                Failure::new(FailureKind::Usage, format!("{}: {}", path.display(), problem.cause));
            match problem.remedy {
                Some(remedy) => failure.remedy(remedy),
                None => failure.remedy("examples/deploy/fog.toml shows every key"),
            }
        })
    }

    /// The settings of an empty file.
    ///
    /// # Errors
    /// None, unless a default is invalid.
    pub fn default_settings() -> Result<Self, Failure> {
        Self::parse("").map_err(|problem| Failure::new(FailureKind::Internal, problem.cause))
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let table: toml::Table = text.parse().map_err(|error| Problem::toml(text, &error))?;
        for (section, value) in &table {
            match value.as_table() {
                None => return Err(unknown(section)),
                Some(keys) => {
                    for key in keys.keys() {
                        let key = format!("{section}.{key}");
                        if !KEYS.contains(&key.as_str()) {
                            return Err(unknown(&key));
                        }
                    }
                    // An empty section has no key to refuse, so its own name is checked.
                    if !KEYS.iter().any(|key| key.split('.').next() == Some(section)) {
                        return Err(unknown(section));
                    }
                }
            }
        }
        let raw: Raw = toml::from_str(text).map_err(|error| Problem::toml(text, &error))?;
        raw.check()
    }
}

/// Checks a configuration that is about to be written.
///
/// # Errors
/// As [`Config::read`].
pub fn check(text: &str) -> Result<(), Failure> {
    Config::parse(text).map(drop).map_err(|problem| Failure::new(FailureKind::Usage, problem.cause))
}

struct Problem {
    cause: String,
    remedy: Option<String>,
}

impl Problem {
    fn of(key: &str, cause: impl std::fmt::Display) -> Self {
        Self { cause: format!("{key}: {cause}"), remedy: None }
    }

    /// A problem of the parser, with the line and the key in it.
    fn toml(text: &str, error: &toml::de::Error) -> Self {
        // The whole message has several lines and repeats the file's text.
        let what = error.message().replace('\n', " ");
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let number = before.matches('\n').count();
        let line = text.lines().nth(number).unwrap_or_default();
        let section = text.lines().take(number + 1).filter_map(|line| {
            line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next())
        });
        let cause = match (section.last(), line.split_once('=')) {
            (Some(section), Some((key, _))) => format!("{section}.{}: {what}", key.trim()),
            _ => what,
        };
        Self { cause: format!("line {}: {cause}", number + 1), remedy: None }
    }
}

fn unknown(key: &str) -> Problem {
    let nearest = KEYS
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)))
        .map(|nearest| format!("did you mean {nearest}?"));
    Problem { cause: format!("unknown key {key}"), remedy: nearest }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Raw {
    network: RawNetwork,
    smtp: RawSmtp,
    exit: RawExit,
    operator: RawOperator,
    log: RawLog,
    tor: RawTor,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawNetwork {
    id: Option<String>,
    bootstrap: Vec<String>,
    devnet: Option<PathBuf>,
    speed: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSmtp {
    listen: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawExit {
    deliver: Option<String>,
    domains: Vec<String>,
    from: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawOperator {
    contact: String,
    family: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawLog {
    level: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawTor {
    mode: Option<String>,
    control: Option<String>,
    socks: Option<String>,
    listen: Option<String>,
}

impl RawTor {
    fn check(&self) -> Result<TorSettings, Problem> {
        let mode = match self.mode.as_deref() {
            None | Some("auto") => Mode::Auto,
            Some("running") => Mode::Running,
            Some("own") => Mode::Own,
            Some("manual") => Mode::Manual,
            Some(_) => return Err(Problem::of("tor.mode", "say auto, running, own or manual")),
        };
        let control = self.control.as_deref().map(str::parse).transpose();
        let control = control.map_err(|error| Problem::of("tor.control", error))?;
        if control.is_some() && matches!(mode, Mode::Own | Mode::Manual) {
            return Err(Problem::of("tor.control", "is for tor.mode auto and running"));
        }
        let loopback = |key, text: &str| match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(address),
            Ok(_) => Err(Problem::of(key, "only loopback addresses are used")),
            Err(_) => Err(Problem::of(key, "not ADDRESS:PORT")),
        };
        let socks = self.socks.as_deref().map(|text| loopback("tor.socks", text)).transpose()?;
        let listen = self.listen.as_deref().unwrap_or(DEFAULT_TOR_LISTEN);
        Ok(TorSettings { mode, control, socks, listen: loopback("tor.listen", listen)? })
    }
}

impl Raw {
    fn check(self) -> Result<Config, Problem> {
        if let Some(id) = &self.network.id
            && (id.len() != 64 || !id.bytes().all(|octet| octet.is_ascii_hexdigit()))
        {
            return Err(Problem::of("network.id", "not 64 hex digits"));
        }
        let listen = self.smtp.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
        let listen: SocketAddr =
            listen.parse().map_err(|_| Problem::of("smtp.listen", "not ADDRESS:PORT"))?;
        if !listen.ip().is_loopback() {
            return Err(Problem::of("smtp.listen", "only loopback addresses are listened on"));
        }
        let deliver = self.exit.deliver.as_deref().map(str::parse).transpose();
        let from = self.exit.from.as_deref().unwrap_or(DEFAULT_FROM);
        if self.operator.contact.len() > MAX_CONTACT
            || self.operator.contact.chars().any(char::is_control)
        {
            return Err(Problem::of("operator.contact", "at most 128 printable octets"));
        }
        let family = onions("operator.family", &self.operator.family)?;
        if family.len() > MAX_FAMILY {
            return Err(Problem::of("operator.family", "at most 16 addresses"));
        }
        let level = self.log.level.as_deref().unwrap_or("warn");
        Ok(Config {
            network: self.network.id.map(|id| id.to_ascii_lowercase()),
            bootstrap: onions("network.bootstrap", &self.network.bootstrap)?,
            devnet: self.network.devnet,
            speed: self.network.speed,
            listen,
            deliver: deliver.map_err(|error: String| Problem::of("exit.deliver", error))?,
            domains: domains(&self.exit.domains)?,
            from: Mailbox::parse(from).map_err(|error| Problem::of("exit.from", error))?,
            contact: self.operator.contact,
            family,
            level: level
                .parse()
                .map_err(|_| Problem::of("log.level", "say error, warn, info, debug or trace"))?,
            tor: self.tor.check()?,
        })
    }
}

fn onions(key: &str, texts: &[String]) -> Result<Vec<OnionAddress>, Problem> {
    texts.iter().map(|text| text.parse().map_err(|error| Problem::of(key, error))).collect()
}

fn domains(names: &[String]) -> Result<Domains, Problem> {
    if names.is_empty() {
        return Ok(Domains::Any);
    }
    if names.len() > Domains::MAX {
        return Err(Problem::of("exit.domains", "at most 32 domains"));
    }
    let parse = |name: &String| {
        let domain = mail::Domain::parse(name);
        domain.map(|domain| domain.as_str().to_owned()).map_err(|e| Problem::of("exit.domains", e))
    };
    names.iter().map(parse).collect::<Result<_, _>>().map(Domains::Only)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../examples/deploy/fog.toml");

    #[test]
    fn the_example_is_valid_and_names_every_key() {
        let config = Config::parse(EXAMPLE).map_err(|problem| problem.cause).unwrap();
        assert_eq!(config.listen.port(), 2525);
        // Commented keys count: uncommented, the file must still be valid.
        let all: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.contains(" = ") && !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let table: toml::Table = all.parse().unwrap();
        let mut named: Vec<String> = table
            .iter()
            .flat_map(|(section, keys)| {
                keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}"))
            })
            .collect();
        named.sort();
        let mut keys = KEYS.map(str::to_owned);
        keys.sort();
        assert_eq!(named, keys);
        assert!(Config::parse(&all).is_ok());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, cause, remedy) in [
            ("[smtp]\nlissten = \"x\"", "unknown key smtp.lissten", "did you mean smtp.listen?"),
            ("[netwrk]\nid = \"x\"", "unknown key netwrk.id", "did you mean network.id?"),
            ("speed = 5", "unknown key speed", ""),
            ("[tor2]", "unknown key tor2", ""),
            ("[smtp]\nlisten = 2525", "line 2: smtp.listen: invalid type", ""),
            ("[smtp]\nlisten = \"0.0.0.0:2525\"", "smtp.listen: only loopback", ""),
            ("[smtp]\nlisten = \"2525\"", "smtp.listen: not ADDRESS:PORT", ""),
            (
                "[network]\nbootstrap = [\"abc.onion\"]",
                "network.bootstrap: an onion address has",
                "",
            ),
            ("[network]\nid = \"xyz\"", "network.id: not 64", ""),
            ("[network]\nspeed = -1", "line 2: network.speed: invalid value", ""),
            ("[exit]\ndeliver = \"smtp://mx.example\"", "exit.deliver: say maildir", ""),
            ("[exit]\ndomains = [\"a b\"]", "exit.domains: bad domain", ""),
            ("[exit]\nfrom = \"nobody\"", "exit.from: address without @", ""),
            ("[tor]\nmode = \"none\"", "tor.mode: say auto", ""),
            ("[tor]\ncontrol = \"10.0.0.1:9051\"", "tor.control: a control port on another", ""),
            ("[tor]\nmode = \"own\"\ncontrol = \"127.0.0.1:1\"", "tor.control: is for", ""),
            ("[tor]\nsocks = \"9050\"", "tor.socks: not ADDRESS:PORT", ""),
            ("[tor]\nlisten = \"0.0.0.0:1\"", "tor.listen: only loopback", ""),
            ("[log]\nlevel = \"loud\"", "log.level: say", ""),
            ("[operator]\ncontact = \"a\\nb\"", "operator.contact: at most", ""),
            ("[smtp", "", ""),
        ] {
            let problem = Config::parse(text).err().unwrap();
            assert!(problem.cause.contains(cause), "{text}: {}", problem.cause);
            assert!(!problem.cause.contains('\n'), "{}", problem.cause);
            assert!(problem.remedy.unwrap_or_default().contains(remedy), "{text}");
        }
    }
}
