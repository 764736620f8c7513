//! State folders whose contents are kept, lost, restored, damaged and destroyed.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sphinx::ReplayTag;

use directory::ItemId;
use keys::{Epoch, MixSeed, NodeId};
use record::{Parameters, testing};
use remailer::{Kept, Past};

use super::*;
use crate::files::faults::{FaultKind, inject};

#[test]
fn what_was_kept_is_there_again_and_closed_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut rng = StdRng::seed_from_u64(1);
    let node = {
        let store = Store::open(&path).unwrap();
        let identity = store.identity(&mut rng).unwrap();
        for epoch in 5..9 {
            store.keep_seed(Epoch::new(epoch), &MixSeed::generate(&mut rng)).unwrap();
        }
        store.forget_seeds(Epoch::new(7)).unwrap();
        assert!(Store::open(&path).is_err(), "two nodes on one folder");
        identity.node()
    };
    let store = Store::open(&path).unwrap();
    assert_eq!(store.identity(&mut rng).unwrap().node(), node);
    assert!(store.bind(&node).is_ok());
    let mut epochs: Vec<_> = store.epochs().unwrap().iter().map(|(e, _)| e.number()).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, [7, 8]);
    for file in ["identity", "version", "lock", "epochs/7"] {
        let mode = fs::metadata(path.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

fn tags(epoch: u32, from: u8, to: u8) -> Vec<(Epoch, ReplayTag)> {
    (from..to).map(|n| (Epoch::new(epoch), ReplayTag::from_bytes([n; 16]))).collect()
}

/// The numbers of tags stored for epochs 5 and 6; `None` if the key is gone.
fn kept(store: &Store) -> [Option<usize>; 2] {
    let epochs = store.epochs().unwrap();
    [5, 6].map(|number| {
        let found = epochs.iter().find(|(epoch, _)| *epoch == Epoch::new(number));
        match &found.unwrap().1 {
            Kept::Key { seen, .. } => Some(seen.len()),
            Kept::Withdrawn => None,
        }
    })
}

#[test]
fn a_key_whose_tags_may_be_lost_is_given_up_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut rng = StdRng::seed_from_u64(1);
    let seeds = [5, 6].map(|epoch| (epoch, MixSeed::generate(&mut rng)));
    let store = Store::open(&path).unwrap();
    for (epoch, seed) in &seeds {
        store.keep_seed(Epoch::new(*epoch), seed).unwrap();
    }
    let keeper = || tags::Tags::new(path.join("epochs"));
    keeper().keep(&tags(5, 0, 10)).unwrap();
    keeper().keep(&[tags(5, 10, 20), tags(6, 0, 3)].concat()).unwrap();
    assert_eq!(kept(&store), [Some(20), Some(3)]);
    // A node that was killed in the middle of a write left half a record, which nothing rests on.
    let file = path.join("epochs/5.tags");
    let octets = fs::read(&file).unwrap();
    assert_eq!(octets.len(), 20 * 20);
    fs::write(&file, [&octets[..], &[7; 13]].concat()).unwrap();
    assert_eq!(kept(&store), [Some(20), Some(3)]);
    keeper().keep(&tags(5, 20, 21)).unwrap();
    assert_eq!(kept(&store), [Some(21), Some(3)]);
    // One that is not what was written, and one that stands where another was.
    let mut flipped = fs::read(&file).unwrap();
    flipped[83] ^= 1;
    fs::write(&file, &flipped).unwrap();
    let other = fs::read(path.join("epochs/6.tags")).unwrap();
    fs::write(path.join("epochs/6.tags"), [&other[20..40], &other[..20]].concat()).unwrap();
    assert_eq!(kept(&store), [None, None]);
    assert_eq!(kept(&store), [None, None]);
    assert!(!path.join("epochs/5").exists(), "the seed is destroyed");
    for (_, seed) in &seeds {
        assert!(!found_in(&path, seed.as_bytes()));
    }
    keeper().forget(Epoch::new(7)).unwrap();
    store.forget_seeds(Epoch::new(7)).unwrap();
    assert!(store.epochs().unwrap().is_empty());
    assert_eq!(fs::read_dir(path.join("epochs")).unwrap().count(), 0);
}

#[test]
fn a_batch_of_tags_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let store = Store::open(&path).unwrap();
    let seed = MixSeed::generate(&mut StdRng::seed_from_u64(1));
    for epoch in [5, 6] {
        store.keep_seed(Epoch::new(epoch), &seed).unwrap();
    }
    let mut keeper = tags::Tags::new(path.join("epochs"));
    keeper.keep(&tags(5, 0, 10)).unwrap();
    for kind in FaultKind::RETURNING {
        for after in 0..4 {
            let fault = inject(&path, kind, after, usize::MAX);
            let failed = keeper.keep(&[tags(5, 10, 20), tags(6, 0, 3)].concat()).is_err();
            drop(fault);
            if failed {
                // The same batch, as it is tried again.
                keeper.keep(&[tags(5, 10, 20), tags(6, 0, 3)].concat()).unwrap();
            }
        }
    }
    let [Some(fifth), Some(sixth)] = kept(&store) else { panic!("no key is given up") };
    assert_eq!((fifth, sixth), (20, 3));
}

#[test]
fn a_key_that_was_being_given_up_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let store = Store::open(&path).unwrap();
    let seed = MixSeed::generate(&mut StdRng::seed_from_u64(1));
    for epoch in [5, 6] {
        store.keep_seed(Epoch::new(epoch), &seed).unwrap();
    }
    fs::write(path.join("epochs/5.withdrawn"), []).unwrap();
    assert_eq!(kept(&store), [None, Some(0)]);
    assert!(!path.join("epochs/5").exists());
}

fn found_in(folder: &Path, octets: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return found_in(&path, octets);
        }
        fs::read(path).unwrap().windows(octets.len()).any(|window| window == octets)
    })
}

#[test]
fn what_the_second_layout_kept_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let seed = MixSeed::generate(&mut StdRng::seed_from_u64(1));
    {
        let store = Store::open(&path).unwrap();
        for epoch in [5, 6] {
            store.keep_seed(Epoch::new(epoch), &seed).unwrap();
        }
        let db = sled::open(path.join("db")).unwrap();
        db.open_tree("statements").unwrap().insert([1; 16], &b"a record"[..]).unwrap();
        for tag in 0..7 {
            db.open_tree("tags-5").unwrap().insert([tag; 16], &[]).unwrap();
        }
        db.flush().unwrap();
        fs::write(path.join("epochs/5.mark"), [0; 16]).unwrap();
        fs::write(path.join("version"), VERSION_2).unwrap();
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(fs::read_to_string(path.join("version")).unwrap(), VERSION);
    assert_eq!(kept(&store), [Some(7), Some(0)]);
    assert!(!path.join("epochs/5.mark").exists());
    let mut database = Database::open(store.folder()).unwrap();
    assert_eq!(database.statements(), [b"a record".to_vec()]);
    database.keep(&ItemId::of(b"b"), b"b").unwrap();
    database.forget(&[ItemId::from_bytes([1; 16])]).unwrap();
    assert_eq!(database.statements(), [b"b".to_vec()]);
}

#[test]
fn a_database_that_cannot_be_read_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let mut database = Database::open(folder.path()).unwrap();
        assert!(database.statements().is_empty());
        database.keep(&ItemId::of(b"a"), b"a").unwrap();
        database.flush().unwrap();
        drop(database);
        let octets = fs::read(folder.path().join("db/conf")).unwrap();
        fs::write(folder.path().join("db/conf"), vec![0x5a; octets.len()]).unwrap();
        assert_eq!(folder.path().join("db.damaged").exists(), round > 0);
    }
    // As after a start on a full disk: an empty snapshot that is being made.
    let database = Database::open(folder.path()).unwrap();
    drop(database);
    fs::write(folder.path().join("db/snap.0000000000FFFFFF.generating"), []).unwrap();
    assert!(Database::open(folder.path()).is_ok());
}

#[test]
fn what_a_node_published_is_known_to_be_its_own_and_lists_are_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let store = Store::open(&path).unwrap();
    // The identity alone, put back from a backup; one that was made here; and one that has
    // published.
    let other = NodeId::from_bytes([9; 32]);
    assert!(matches!(store.past(&other), Ok(Past::Forgotten)));
    let node = store.identity(&mut StdRng::seed_from_u64(1)).unwrap().node();
    assert!(matches!(store.past(&node), Ok(Past::None)));
    assert!(matches!(store.past(&other), Ok(Past::Forgotten)));
    assert!(store.bind(&node).is_ok() && store.bind(&other).is_err());
    let (at, schedule) =
        (keys::Time::from_millis(1_782_000_000_000), Parameters::main().schedule());
    let network = keys::NetworkId::from_bytes([7; 32]);
    let identity = store.identity(&mut StdRng::seed_from_u64(1)).unwrap();
    let own = testing::draft(1, at, &schedule).sign(&identity, &network).unwrap();
    store.write("own", &own).unwrap();
    assert!(matches!(store.past(&node), Ok(Past::Known(known)) if known == own));
    assert!(store.bind(&node).is_ok() && store.bind(&other).is_err());

    assert!(store.list::<u32>(List::Peers).unwrap().is_empty());
    store.keep_list(List::Peers, &[3, 5]).unwrap();
    assert_eq!(store.list::<u32>(List::Peers).unwrap(), [3, 5]);
    fs::write(path.join("peers"), "3\nx\n").unwrap();
    assert!(store.list::<u32>(List::Peers).unwrap().is_empty(), "it is only a help");
    fs::write(path.join("banned"), "3\nx\n").unwrap();
    assert!(store.list::<u32>(List::Banned).is_err());
    store.keep_list::<u32>(List::Peers, &[]).unwrap();
    assert!(!path.join("peers").exists());
}

#[test]
fn a_folder_that_is_open_damaged_or_newer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| Store::open(path).map(drop).map_err(|f| f.to_string());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(open(folder.path()).unwrap_err().contains("other users"));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(folder.path().join("version"), "5\n").unwrap();
    assert!(open(folder.path()).unwrap_err().contains("another version"));
    fs::write(folder.path().join("version"), VERSION).unwrap();
    fs::write(folder.path().join("identity"), [0; 31]).unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    assert!(store.identity(&mut rng).is_err());
}
