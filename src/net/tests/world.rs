//! A devnet folder with one whole node, for tests that meet it as its peers do.

use std::path::PathBuf;

use keys::{Identity, OnionAddress, Schedule};
use record::{Admission, Descriptor, Domains, Parameters};

use crate::clock::Clock;
use crate::driver::{Carrier, Node, Settings};
use crate::exit::{ExitSettings, Target};
use crate::net::connect::DevnetFolder;
use crate::store::Store;

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) descriptor: Descriptor,
    pub(super) clock: Clock,
}

impl World {
    pub(super) fn new() -> Self {
        let clock = Clock::start();
        let parameters = Parameters::scaled(10, 0).quiet();
        let maker = Identity::from_seed(&[9; 32]);
        let (now, voters, rule) = (clock.now(), [maker.node()], Admission::Open);
        let descriptor = Descriptor::create(&maker, "test", now, &parameters, &voters, &rule);
        Self { folder: tempfile::tempdir().unwrap(), descriptor: descriptor.unwrap(), clock }
    }

    /// A world with this network.
    pub(super) fn of(descriptor: Descriptor, clock: Clock) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), descriptor, clock }
    }

    pub(super) fn schedule(&self) -> Schedule {
        self.descriptor.parameters().schedule()
    }

    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(super) fn devnet(&self) -> DevnetFolder {
        DevnetFolder::open(&self.folder.path().join("devnet")).unwrap()
    }

    /// A node that keeps its state in `state`.
    pub(super) async fn node(&self, contact: &str, deliver: Option<Target>) -> Node {
        self.start("state", contact, deliver, &[], self.devnet()).await
    }

    /// Another node, with these bootstraps.
    pub(super) async fn node_at(&self, name: &str, bootstrap: &[OnionAddress]) -> Node {
        self.start(name, "", None, bootstrap, self.devnet()).await
    }

    /// Another node, on a devnet folder that tells it where the others are.
    pub(super) async fn node_in(
        &self,
        devnet: DevnetFolder,
        name: &str,
        bootstrap: &[OnionAddress],
    ) -> Node {
        self.start(name, "", None, bootstrap, devnet).await
    }

    async fn start(
        &self,
        name: &str,
        contact: &str,
        deliver: Option<Target>,
        bootstrap: &[OnionAddress],
        devnet: DevnetFolder,
    ) -> Node {
        let settings = Settings {
            store: Store::open(&self.folder.path().join(name)).unwrap(),
            descriptor: self.descriptor.clone(),
            carrier: Carrier::Devnet(devnet),
            bootstrap: bootstrap.to_vec(),
            contact: contact.to_owned(),
            family: Vec::new(),
            smtp: "127.0.0.1:0".parse().unwrap(),
            exit: deliver.map(|target| ExitSettings {
                target,
                domains: Domains::Any,
                anonymous: mail::Mailbox::parse("a@b.example").unwrap(),
            }),
            desk: None,
        };
        Node::start(settings, self.clock).await.unwrap()
    }
}
