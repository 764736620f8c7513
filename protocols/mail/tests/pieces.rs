//! Messages that take several packets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests, which write vectors when they are told to"
)]

use fog_mail::{
    Assembly, Fragment, FragmentError, MAX_MESSAGE, Mailbox, Piece, Submission, rebuild, scrub,
};
use proptest::prelude::*;

const ROOM: usize = 8192;

fn fragment(body: &[u8]) -> Fragment {
    let message = [b"To: a@b.example\r\n\r\n", body].concat();
    let recipients = vec![Mailbox::parse("a@b.example").unwrap()];
    let scrubbed = scrub(&Submission { recipients, message }).unwrap().pop().unwrap();
    Fragment::cut(scrubbed, [7; 16], [8; 16])
}

/// Lines that do not get shorter.
fn noise(octets: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut body = Vec::with_capacity(octets + 80);
    while body.len() < octets {
        for _ in 0..76 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Of 128 values those that a mail may have.
            let octet = u8::try_from(state >> 57).unwrap();
            body.push(if octet < 32 { octet + 64 } else { octet });
        }
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// Lines that get shorter by five or six times.
fn words(octets: usize) -> Vec<u8> {
    let words = ["many", "words", "that", "are", "said", "again", "and", "mean", "little", "so"];
    let mut state = 7_usize;
    let mut body = Vec::new();
    while body.len() < octets {
        for _ in 0..8 {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            body.extend_from_slice(words[(state >> 16) % words.len()].as_bytes());
            body.push(b' ');
        }
        body.extend_from_slice(b"\r\n");
    }
    body
}

fn pieces(fragment: &Fragment, room: usize) -> Vec<Piece> {
    let octets = fragment.pieces(room).unwrap();
    assert!(octets.iter().all(|piece| piece.len() <= room));
    octets.iter().map(|piece| Piece::decode(piece).unwrap()).collect()
}

fn assemble(pieces: impl IntoIterator<Item = Piece>) -> Result<Fragment, FragmentError> {
    let mut pieces = pieces.into_iter();
    let mut assembly = Assembly::begin(pieces.next().ok_or(FragmentError::Pieces)?);
    for piece in pieces {
        assembly.add(piece)?;
    }
    assembly.finish()
}

fn text(fragment: &Fragment) -> Vec<u8> {
    let anonymous = Mailbox::parse("anonymous@exit.example").unwrap();
    rebuild(fragment, &anonymous, 495_000).unwrap().message.clone()
}

#[test]
fn pieces_are_laid_out_as_the_vector() {
    let octets = fragment(&noise(900, 4)).pieces(512).unwrap();
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let lines: String = octets.iter().map(|piece| hex(piece) + "\n").collect();
    if std::env::var_os("FOG_WRITE_VECTORS").is_some() {
        std::fs::write("tests/vectors/pieces-2.hex", &lines).unwrap();
    }
    assert_eq!(lines, include_str!("vectors/pieces-2.hex"));
}

#[test]
fn what_does_not_fit_is_compressed_and_then_cut() {
    let count = |body: &[u8]| fragment(body).pieces(ROOM).unwrap().len();
    assert_eq!(count(b"short\r\n"), 1);
    let body = words(30_000);
    assert_eq!(count(&body), 1, "30 KB of words in one piece");
    // What gets shorter by more than eight times is not deflated.
    assert_eq!(count(&b"the same again\r\n".repeat(2000)), 4 + 2);
    // Four pieces of five are needed, and three of the four pieces that are needed have a fourth.
    let body = noise(30_000, 3);
    assert_eq!(count(&body), 4 + 2);
    let one = fragment(&words(30_000));
    let packed = one.pieces(ROOM).unwrap().pop().unwrap();
    let same = Fragment::decode(&packed).unwrap();
    assert!(text(&same) == text(&one) && packed.len() < ROOM);
}

#[test]
fn ten_megabytes_come_back_octet_for_octet_without_a_quarter_of_their_pieces() {
    let body = noise(MAX_MESSAGE - 200, 5);
    let whole = fragment(&body);
    let mut all = pieces(&whole, 240_000);
    assert!((40..=64).contains(&all.len()), "{}", all.len());
    let lost = all.len() / 4;
    // The first quarter, all of which would have been plain.
    all.drain(..lost);
    assert!(text(&assemble(all).unwrap()) == text(&whole));
    let over = fragment(&noise(MAX_MESSAGE + 1, 5));
    assert_eq!(over.pieces(240_000).err(), Some(FragmentError::TooLong));
    assert_eq!(whole.pieces(2000).err(), Some(FragmentError::TooLong), "too many pieces");
    assert_eq!(whole.pieces(0).err(), Some(FragmentError::TooLong));
}

#[test]
fn pieces_that_contradict_each_other_are_dropped_and_copies_change_nothing() {
    let (one, other) = (fragment(&noise(30_000, 1)), fragment(&noise(40_000, 2)));
    let mut mine = pieces(&one, ROOM);
    let mut assembly = Assembly::begin(mine.remove(0));
    let before = assembly.octets();
    let contradiction = Err(FragmentError::Contradiction);
    assert_eq!(assembly.add(pieces(&other, ROOM).remove(1)), contradiction, "other counts");
    let alike = fragment(&noise(30_000, 9));
    assert_eq!(assembly.add(pieces(&alike, ROOM).remove(0)), contradiction, "other octets");
    assert_eq!(assembly.add(pieces(&one, ROOM).remove(0)), Ok(()), "a copy");
    assert_eq!(assembly.octets(), before);
    assert!(!assembly.is_complete());
    assert_eq!(assembly.finish().err(), Some(FragmentError::Pieces));
    // A piece that was altered spoils its own message, and does no other harm.
    let mut octets = one.pieces(ROOM).unwrap();
    *octets[2].last_mut().unwrap() ^= 1;
    let spoiled = assemble(octets.iter().map(|piece| Piece::decode(piece).unwrap()));
    assert!(!spoiled.is_ok_and(|fragment| text(&fragment) == text(&one)));
}

/// 64 MiB of zeros in 65 KB.
#[test]
fn a_bomb_stops_at_the_limit() {
    let mut bomb = fragment(b"x\r\n").pieces(ROOM).unwrap().pop().unwrap().to_vec();
    let zeros = vec![0; 64 << 20];
    let packed = miniz_oxide::deflate::compress_to_vec(&zeros, 6);
    assert!(packed.len() < 70_000);
    // The whole is the piece; its message is its last field, after its length.
    let message = b"To: a@b.example\r\n\r\nx\r\n";
    let at = bomb.windows(message.len()).position(|part| part == message).unwrap();
    bomb.truncate(at - 8);
    bomb.extend_from_slice(&(packed.len() as u64).to_be_bytes());
    bomb.extend_from_slice(&packed);
    let head = 1 + 16 + 6;
    let whole = bomb.len() - head - 4 - 8;
    bomb[head..head + 4].copy_from_slice(&u32::try_from(whole).unwrap().to_be_bytes());
    bomb[head + 4..head + 12].copy_from_slice(&(whole as u64).to_be_bytes());
    bomb[head + 12 + 1] = 1;
    assert_eq!(Fragment::decode(&bomb).err(), Some(FragmentError::Malformed));
}

#[test]
fn a_message_that_fits_is_not_compressed_and_pieces_use_the_room_that_they_have() {
    let fragment = fragment(&words(3000));
    let plain = fragment.encode().unwrap();
    assert_eq!(fragment.pieces(plain.len()).unwrap(), vec![plain.clone()]);
    let squeezed = fragment.pieces(plain.len() - 1).unwrap();
    assert!(squeezed.len() == 1 && squeezed[0].len() < plain.len() / 2);
    assert_eq!(fragment.size(), "To: a@b.example\r\n\r\n".len() + words(3000).len());
    let several = self::fragment(&noise(100_000, 3)).pieces(1000).unwrap();
    // A piece is of whole pairs of octets, beside 35 others.
    assert!(several.iter().all(|piece| piece.len() == several[0].len()));
    assert!((980..=1000).contains(&several[0].len()), "{}", several[0].len());
    assert_eq!(Fragment::decode(&several[0]).err(), Some(FragmentError::Unknown));
}

#[test]
fn a_message_may_have_ten_megabytes_and_256_pieces_and_no_more() {
    let header = "To: a@b.example\r\n\r\n".len();
    let mut body = noise(MAX_MESSAGE - header - 200, 9);
    body.truncate(body.len() - body.len() % 78);
    let line = [vec![b'x'; MAX_MESSAGE - header - body.len() - 2], b"\r\n".to_vec()].concat();
    let most = fragment(&[body.clone(), line].concat());
    assert_eq!(most.size(), MAX_MESSAGE);
    assert!(most.pieces(200_000).is_ok());
    let line = [vec![b'x'; MAX_MESSAGE - header - body.len() - 1], b"\r\n".to_vec()].concat();
    let more = fragment(&[body, line].concat());
    assert_eq!(more.pieces(200_000).err(), Some(FragmentError::TooLong));
    let noisy = fragment(&noise(300_000, 5));
    let needed = |room: usize| noisy.pieces(room).map(|pieces| pieces.len() * 3 / 4);
    let fewest = (500..2000).find(|room| noisy.pieces(*room).is_ok()).unwrap();
    assert_eq!(needed(fewest), Ok(256));
    assert_eq!(needed(fewest - 2), Err(FragmentError::TooLong));
}

#[test]
fn a_piece_says_of_what_it_is_and_what_keeping_it_costs() {
    let several = pieces(&fragment(&noise(30_000, 1)), ROOM);
    let only = pieces(&fragment(b"x\r\n"), ROOM).pop().unwrap();
    assert!(only.is_whole() && several.iter().all(|piece| !piece.is_whole()));
    for piece in several.iter().chain([&only]) {
        assert!(piece.delivery() == [7; 16] && !piece.is_empty());
        assert_eq!(piece.len(), piece.to_octets().unwrap().len() - 35);
    }
    let length = several[0].len();
    let mut pieces = several.into_iter();
    let mut assembly = Assembly::begin(pieces.next().unwrap());
    assert_eq!(assembly.octets(), length);
    assembly.add(pieces.next().unwrap()).unwrap();
    assert_eq!(assembly.octets(), 2 * length);
}

#[test]
fn a_piece_with_a_known_number_and_other_octets_contradicts() {
    let first = |seed| pieces(&fragment(&noise(30_000, seed)), ROOM).swap_remove(0);
    let mut assembly = Assembly::begin(first(1));
    assert_eq!(assembly.add(first(2)), Err(FragmentError::Contradiction));
    assert_eq!(assembly.add(first(1)), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any `needed` of the pieces, in any order, give the message again; one less gives none.
    #[test]
    fn any_pieces_that_are_enough_give_the_message(
        octets in 11_000_usize..120_000,
        seed: u64,
        order in Just(()).prop_perturb(|(), mut rng| rng.next_u64()),
    ) {
        let whole = fragment(&noise(octets, seed));
        let mut all = pieces(&whole, ROOM);
        let total = all.len();
        // As many were made as are needed, and a third more.
        let needed = (1..total).find(|needed| needed + needed.div_ceil(3) == total).unwrap();
        let mut state = order | 1;
        for at in (1..total).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            all.swap(at, (state % (at as u64 + 1)) as usize);
        }
        all.truncate(needed);
        let few: Vec<_> = pieces(&whole, ROOM).into_iter().take(needed - 1).collect();
        prop_assert!(text(&assemble(all).unwrap()) == text(&whole));
        prop_assert!(assemble(few).is_err());
    }

    #[test]
    fn any_octets_are_no_piece_or_one_piece(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut piece = fragment(b"x\r\n").encode().unwrap().to_vec();
        for (to, from) in piece.iter_mut().skip(1).zip(&octets) {
            *to = *from;
        }
        for octets in [octets, piece] {
            if let Ok(piece) = Piece::decode(&octets) {
                let _ = Assembly::begin(piece).finish();
            }
        }
    }
}
