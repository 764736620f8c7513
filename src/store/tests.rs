//! State folders whose contents are kept, lost, restored, damaged and destroyed.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sphinx::ReplayTag;

use keys::{Epoch, MixSeed, NodeId};
use remailer::{Kept, Past};

use super::*;

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
    assert!(store.bind(&node).is_ok() && store.bind(&node).is_ok());
    assert!(store.bind(&NodeId::from_bytes([1; 32])).is_err());
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
    {
        let store = Store::open(&path).unwrap();
        for (epoch, seed) in &seeds {
            store.keep_seed(Epoch::new(*epoch), seed).unwrap();
        }
        let mut keeper = store.tags();
        keeper.keep(&tags(5, 0, 10)).unwrap();
        keeper.keep(&[tags(5, 8, 20), tags(6, 0, 3)].concat()).unwrap();
    }
    {
        let store = Store::open(&path).unwrap();
        assert_eq!(kept(&store), [Some(20), Some(3)]);
        // As after a power failure: the mark is there, a tag is not.
        let tree = store.db.open_tree("tags-5").unwrap();
        tree.remove([7; 16]).unwrap();
        // The mark of epoch 6 is cut short.
        fs::write(path.join("epochs/6.mark"), [0; 9]).unwrap();
        assert_eq!(kept(&store), [None, None]);
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(kept(&store), [None, None]);
    assert!(!path.join("epochs/5").exists(), "the seed is destroyed");
    for (_, seed) in &seeds {
        assert!(!found_in(&path, seed.as_bytes()));
    }
    store.tags().forget(Epoch::new(7)).unwrap();
    store.forget_seeds(Epoch::new(7)).unwrap();
    assert!(store.epochs().unwrap().is_empty());
    assert_eq!(fs::read_dir(path.join("epochs")).unwrap().count(), 0);
}

#[test]
fn killed_between_the_tags_and_their_mark_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut rng = StdRng::seed_from_u64(1);
    let store = Store::open(&path).unwrap();
    for epoch in [5, 6] {
        store.keep_seed(Epoch::new(epoch), &MixSeed::generate(&mut rng)).unwrap();
    }
    store.tags().keep(&tags(5, 0, 10)).unwrap();
    let mark = fs::read(path.join("epochs/5.mark")).unwrap();
    store.tags().keep(&tags(5, 10, 30)).unwrap();
    fs::write(path.join("epochs/5.mark"), mark).unwrap();
    // A mark that was made and not written yet.
    fs::write(path.join("epochs/6.mark"), []).unwrap();
    assert_eq!(kept(&store), [Some(30), Some(0)]);
    // The node was killed between the two steps of giving a key up.
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
fn what_the_first_layout_kept_is_there_and_lists_are_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    {
        let store = Store::open(&path).unwrap();
        let old = store.db.open_tree("records").unwrap();
        old.insert([1; 32], &b"a record"[..]).unwrap();
        fs::write(path.join("version"), VERSION_1).unwrap();
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.statements(), [b"a record".to_vec()]);
    assert_eq!(fs::read_to_string(path.join("version")).unwrap(), VERSION);
    store.forget_statements(&[ItemId::of(b"a record")]).unwrap();
    assert!(store.statements().is_empty());
    // The identity alone, put back from a backup; one that was made here; and one that has
    // published.
    let other = NodeId::from_bytes([9; 32]);
    assert!(matches!(store.past(&other), Ok(Past::Forgotten)));
    let node = store.identity(&mut StdRng::seed_from_u64(1)).unwrap().node();
    assert!(matches!(store.past(&node), Ok(Past::None)));
    assert!(matches!(store.past(&other), Ok(Past::Forgotten)));
    store.keep_own(&[1; 100]).unwrap();
    assert!(matches!(store.past(&node), Ok(Past::Known(own)) if own == [1; 100]));

    assert!(store.list::<u32>(List::Peers).unwrap().is_empty());
    store.keep_list(List::Peers, &[3, 5]).unwrap();
    assert_eq!(store.list::<u32>(List::Peers).unwrap(), [3, 5]);
    fs::write(path.join("peers"), "3\nx\n").unwrap();
    assert!(store.list::<u32>(List::Peers).is_err());
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
    fs::write(folder.path().join("version"), "3\n").unwrap();
    assert!(open(folder.path()).unwrap_err().contains("another version"));
    fs::write(folder.path().join("version"), VERSION).unwrap();
    fs::write(folder.path().join("identity"), [0; 31]).unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    assert!(store.identity(&mut rng).is_err());
}
