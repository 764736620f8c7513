//! The side that is asked.

use keys::{Hour, Time};
use record::ListSketch;
use record::canonical::{self, CodecError};

use super::wire::{
    AnswerBody, BUCKETS, DIGEST, MAX_ANSWER, MAX_ITEM_OCTETS, MAX_LISTED, Request, VERSION,
    Versioned, bucket, contains, join,
};
use crate::admit::Directory;
use crate::item::Items;
use crate::list::write_entries;

impl Directory {
    /// The answer to a peer's question, as octets.
    ///
    /// # Errors
    /// [`CodecError`] for octets that are no question.
    pub fn answer(&self, octets: &[u8], now: Time) -> Result<Vec<u8>, CodecError> {
        let body = match Request::decode(octets)? {
            Request::Summary => {
                let (hour, sketch) = self.list_in_use();
                AnswerBody::Summary {
                    now: now.as_millis(),
                    hour: hour.number(),
                    sketch: *sketch.as_bytes(),
                    voted: self.voted(self.schedule.hour_at(now)),
                    buckets: self.bucket_digests().concat(),
                }
            }
            Request::List { buckets, after } => {
                let names = self.items.names(after);
                let mut names = names.filter(|id| contains(&buckets, bucket(id)));
                let listed: Vec<_> = names.by_ref().take(MAX_LISTED).copied().collect();
                AnswerBody::List { names: join(&listed), more: names.next().is_some() }
            }
            Request::Fetch(names) => {
                let mut octets = 0;
                let held = names.iter().filter_map(|name| self.items.octets(name));
                let fitting = held.take_while(|item| {
                    octets += item.len();
                    octets <= MAX_ITEM_OCTETS
                });
                AnswerBody::Items(fitting.map(|item| item.to_vec()).collect())
            }
            Request::Entries(buckets) => {
                let mut octets = 0;
                let found = buckets.iter().filter_map(|(number, digest)| {
                    self.lists.find_bucket(*number, *digest).filter(|found| !found.is_empty())
                });
                let written = found.map(|entries| write_entries(&entries));
                // One bucket that is too large by itself keeps none of the others from the peer.
                let fitting = written.filter(|bucket| {
                    let fits = octets + bucket.len() <= MAX_ITEM_OCTETS;
                    octets += if fits { bucket.len() } else { 0 };
                    fits
                });
                AnswerBody::Entries(fitting.collect())
            }
        };
        canonical::encode::<MAX_ANSWER>(&Versioned { version: VERSION, body })
    }

    /// The hour and the sketch of the list that is used; hour 0 if there is none.
    #[must_use]
    pub fn list_in_use(&self) -> (Hour, ListSketch) {
        let list = self.lists.newest();
        list.map_or_else(Default::default, |list| (list.hour(), list.sketch()))
    }

    pub(super) fn bucket_digests(&self) -> &[[u8; DIGEST]] {
        self.items.digests(digest_buckets)
    }
}

fn digest_buckets(items: &Items) -> Vec<[u8; DIGEST]> {
    let mut digests = vec![[0; DIGEST]; BUCKETS];
    let mut names = items.names(None).peekable();
    for (number, digest) in digests.iter_mut().enumerate() {
        let mut hasher = blake3::Hasher::new();
        let mut is_empty = true;
        while let Some(id) = names.next_if(|id| bucket(id) == number) {
            hasher.update(id.as_bytes());
            is_empty = false;
        }
        if !is_empty {
            hasher.finalize_xof().fill(digest);
        }
    }
    digests
}
