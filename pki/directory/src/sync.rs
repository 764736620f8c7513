//! Catching up: what a joiner asks of a peer, and the pages it gets.
//!
//! A request names the identity after which to go on; a page holds the newest records of the
//! identities that follow, and where the next page starts. Both are in the canonical encoding and begin
//! with a version. Of each identity a page holds the record that the present hour's view needs and, after
//! it, the newest. Records in a page are checked as if they had been gossiped.

use bincode::{Decode, Encode};
use keys::NodeId;
use record::canonical::{self, CodecError};

use crate::admit::Directory;

/// Octets of a request, at most.
pub const MAX_REQUEST: usize = 64;
/// Octets of a page, at most.
pub const MAX_PAGE: usize = 128 * 1024;

const VERSION: u8 = 1;
/// Leaves room for the lengths around the records.
const MAX_RECORD_OCTETS: usize = MAX_PAGE - 4096;
/// 64 lengths of 8 octets fit beside [`MAX_RECORD_OCTETS`].
const MAX_RECORDS: usize = 64;

/// The question of a peer that catches up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The last identity that it has from the page before.
    pub after: Option<NodeId>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Statements, unverified.
    pub records: Vec<Vec<u8>>,
    /// Where the next page starts; none if this is the last.
    pub next: Option<NodeId>,
}

impl Directory {
    /// The page that answers a request.
    #[must_use]
    pub fn page(&self, request: &Request) -> Page {
        let mut page = Page { records: Vec::new(), next: None };
        let mut octets = 0;
        let mut last = None;
        for (node, records) in self.after(request.after) {
            octets += records.iter().map(|record| record.octets().len()).sum::<usize>();
            if octets > MAX_RECORD_OCTETS || page.records.len() + records.len() > MAX_RECORDS {
                page.next = last;
                break;
            }
            page.records.extend(records.iter().map(|record| record.octets().to_vec()));
            last = Some(node);
        }
        page
    }
}

impl Request {
    /// The octets.
    ///
    /// # Errors
    /// None that a request can cause.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let after = self.after.map(|node| *node.as_bytes());
        canonical::encode::<MAX_REQUEST>(&RequestBody { version: VERSION, after })
    }

    /// Reads a peer's request.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(octets: &[u8]) -> Result<Self, CodecError> {
        let body: RequestBody = canonical::decode::<_, MAX_REQUEST>(octets)?;
        if body.version != VERSION {
            return Err(CodecError::Malformed);
        }
        Ok(Self { after: body.after.map(NodeId::from_bytes) })
    }
}

impl Page {
    /// The octets.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] for a page that [`Directory::page`] did not make.
    pub fn encode(self) -> Result<Vec<u8>, CodecError> {
        let next = self.next.map(|node| *node.as_bytes());
        let body = PageBody { version: VERSION, records: self.records, next };
        canonical::encode::<MAX_PAGE>(&body)
    }

    /// Reads a peer's page.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(octets: &[u8]) -> Result<Self, CodecError> {
        let body: PageBody = canonical::decode::<_, MAX_PAGE>(octets)?;
        if body.version != VERSION || body.records.len() > MAX_RECORDS {
            return Err(CodecError::Malformed);
        }
        Ok(Self { records: body.records, next: body.next.map(NodeId::from_bytes) })
    }
}

#[derive(Encode, Decode)]
struct RequestBody {
    version: u8,
    after: Option<[u8; 32]>,
}

#[derive(Encode, Decode)]
struct PageBody {
    version: u8,
    records: Vec<Vec<u8>>,
    next: Option<[u8; 32]>,
}
