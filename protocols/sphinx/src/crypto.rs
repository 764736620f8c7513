//! Key derivation, header MAC and stream, payload layer; and the keys that a hop opens packets
//! with.

use aes::Aes256;
use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use keys::{Epoch, MixCiphertext, MixPublic, MixSecret, MixShared, NodeId};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::class::SizeClass;
use crate::layout::{BLOCK_LEN, CLEAR_LEN, HEADER_LEN, MAC_LEN, ROUTING_LEN, TAG_LEN};

const CONTEXT: &str = "fog-v1 sphinx suite 1: keys of a hop";
const REPLY_CONTEXT: &str = "fog-v1 sphinx suite 1: stream of a reply";

/// Octets of a hop's keys: of the MAC, the stream and the payload, 32 each, and the replay tag.
const KEYS_LEN: usize = 112;

/// What marks a packet as seen, 16 octets. It comes from the shared secrets: no octet that somebody
/// on the way can vary changes it without making the packet unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplayTag([u8; Self::LEN]);

impl ReplayTag {
    /// Length in octets.
    pub const LEN: usize = 16;

    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Takes 16 octets from where they were kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

/// A node's secret for one epoch, with what the key derivation needs beside it.
pub struct EpochKey {
    node: NodeId,
    epoch: Epoch,
    secret: MixSecret,
    public_hash: [u8; 32],
}

impl EpochKey {
    /// Binds a secret to its node and epoch.
    #[must_use]
    pub fn new(node: NodeId, epoch: Epoch, secret: MixSecret) -> Self {
        let public_hash = hash(secret.public());
        Self { node, epoch, secret, public_hash }
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &MixPublic {
        self.secret.public()
    }

    pub(crate) fn open(&self, ciphertext: &MixCiphertext, class: SizeClass) -> Option<HopKeys> {
        let shared = self.secret.decapsulate(ciphertext).ok()?;
        let hop = Binding { node: self.node, epoch: self.epoch, class, key: self.public_hash };
        Some(HopKeys::derive(&shared, ciphertext, &hop))
    }
}

/// The keys whose epochs a node accepts at present. Cheap to share between threads; a new set
/// replaces the old one.
#[derive(Clone, Default)]
pub struct EpochKeys(Vec<std::sync::Arc<EpochKey>>);

impl EpochKeys {
    /// A set of keys, one for each epoch.
    #[must_use]
    pub fn new(keys: Vec<std::sync::Arc<EpochKey>>) -> Self {
        Self(keys)
    }

    /// Their epochs, in the order given.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> + '_ {
        self.0.iter().map(|key| key.epoch)
    }

    pub(crate) fn get(&self, epoch: Epoch) -> Option<&EpochKey> {
        self.0.iter().find(|key| key.epoch == epoch).map(AsRef::as_ref)
    }
}

/// Equal if the public halves are.
impl PartialEq for EpochKeys {
    fn eq(&self, other: &Self) -> bool {
        let public = |key: &std::sync::Arc<EpochKey>| (key.epoch, key.public().clone());
        self.0.iter().map(public).eq(other.0.iter().map(public))
    }
}

/// What a hop's keys are bound to beside the secrets and the ciphertext.
pub(crate) struct Binding {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) class: SizeClass,
    /// BLAKE3 of the hop's mix public key.
    pub(crate) key: [u8; 32],
}

/// The keys of one hop of one packet. Zeroized on drop.
#[derive(ZeroizeOnDrop)]
pub(crate) struct HopKeys {
    mac: [u8; 32],
    stream: [u8; 32],
    payload: [u8; 32],
    tag: [u8; ReplayTag::LEN],
}

impl HopKeys {
    pub(crate) fn derive(shared: &MixShared, ciphertext: &MixCiphertext, hop: &Binding) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(shared.x25519());
        hasher.update(shared.mlkem());
        hasher.update(ciphertext.as_bytes());
        hasher.update(&hop.key);
        hasher.update(hop.node.as_bytes());
        hasher.update(&hop.epoch.number().to_be_bytes());
        hasher.update(&[hop.class.number()]);
        let mut output = hasher.finalize_xof();
        hasher.zeroize();
        let mut octets = Zeroizing::new([0; KEYS_LEN]);
        output.fill(octets.as_mut_slice());
        output.zeroize();
        let mut keys =
            Self { mac: [0; 32], stream: [0; 32], payload: [0; 32], tag: [0; ReplayTag::LEN] };
        let fields = keys.mac.iter_mut().chain(&mut keys.stream).chain(&mut keys.payload);
        for (to, from) in fields.chain(&mut keys.tag).zip(octets.iter()) {
            *to = *from;
        }
        keys
    }

    pub(crate) fn replay_tag(&self) -> ReplayTag {
        ReplayTag(self.tag)
    }

    /// Keyed BLAKE3 over the clear header without its MAC, and the routing blocks; 16 octets of it.
    pub(crate) fn mac(
        &self,
        clear: &[u8; CLEAR_LEN - MAC_LEN],
        routing: &[u8; ROUTING_LEN],
    ) -> [u8; MAC_LEN] {
        // Hashed in one piece: two that do not end with a chunk take half as long again.
        let mut header = [0; HEADER_LEN - MAC_LEN];
        let (first, second) = header.split_at_mut(clear.len());
        first.copy_from_slice(clear);
        second.copy_from_slice(routing);
        let hash = blake3::keyed_hash(&self.mac, &header);
        let mut mac = [0; MAC_LEN];
        for (to, from) in mac.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        mac
    }

    /// The routing blocks decrypted, with the block behind them that the next hop gets as its last.
    pub(crate) fn decrypt(
        &self,
        routing: &[u8; ROUTING_LEN],
    ) -> Zeroizing<[u8; ROUTING_LEN + BLOCK_LEN]> {
        let mut region = Zeroizing::new([0; ROUTING_LEN + BLOCK_LEN]);
        let (received, _) = region.split_at_mut(ROUTING_LEN);
        received.copy_from_slice(routing);
        Ctr128BE::<Aes256>::new(&self.stream.into(), &[0; 16].into())
            .apply_keystream(region.as_mut_slice());
        region
    }

    /// The header stream, long enough for the routing blocks and one more: AES-256-CTR from counter
    /// zero, used for one packet.
    pub(crate) fn stream(&self) -> [u8; ROUTING_LEN + BLOCK_LEN] {
        let mut stream = [0; ROUTING_LEN + BLOCK_LEN];
        Ctr128BE::<Aes256>::new(&self.stream.into(), &[0; 16].into()).apply_keystream(&mut stream);
        stream
    }

    /// The key of the stream that this hop adds to a reply.
    pub(crate) fn reply_stream(&self) -> ReplyStream {
        ReplyStream(blake3::derive_key(REPLY_CONTEXT, &self.payload))
    }

    /// Encrypts the payload in place; `None` if it is too long for the mode, which no class is.
    pub(crate) fn seal(&self, payload: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        seal(&self.payload, payload)
    }

    /// Decrypts the payload in place if the tag is right.
    pub(crate) fn unseal(&self, payload: &mut [u8], tag: &[u8; TAG_LEN]) -> Option<()> {
        unseal(&self.payload, payload, tag)
    }
}

/// The stream that one hop adds to one reply: AES-256-CTR from counter zero. Zeroized on drop.
#[derive(ZeroizeOnDrop)]
pub(crate) struct ReplyStream([u8; 32]);

impl ReplyStream {
    /// The 32 octets of its key.
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes the 32 octets of its key.
    pub(crate) const fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Adds it, or takes it away.
    pub(crate) fn apply(&self, payload: &mut [u8]) {
        Ctr128BE::<Aes256>::new(&self.0.into(), &[0; 16].into()).apply_keystream(payload);
    }
}

/// AES-256-GCM in place with a key that is used once, so that the nonce is zero.
pub(crate) fn seal(key: &[u8; 32], octets: &mut [u8]) -> Option<[u8; TAG_LEN]> {
    let tag = Aes256Gcm::new(&(*key).into())
        .encrypt_inout_detached(&[0; 12].into(), &[], octets.into())
        .ok()?;
    Some(tag.into())
}

/// The inverse of [`seal`], if the tag is right.
pub(crate) fn unseal(key: &[u8; 32], octets: &mut [u8], tag: &[u8; TAG_LEN]) -> Option<()> {
    Aes256Gcm::new(&(*key).into())
        .decrypt_inout_detached(&[0; 12].into(), &[], octets.into(), &(*tag).into())
        .ok()
}

pub(crate) fn hash(public: &MixPublic) -> [u8; 32] {
    *blake3::hash(&public.to_bytes()).as_bytes()
}
