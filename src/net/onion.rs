//! A node's key in the forms that libp2p uses: peer id and multiaddress.

use keys::{Identity, NodeId, OnionAddress};
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{PeerId, identity};

/// The port of the swarm on every node's onion service.
pub const SWARM_PORT: u16 = 9999;

/// A peer id of an ed25519 key: identity multihash of 36 octets, which are a protobuf of key type
/// and 32 octets of key.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

pub(crate) fn peer_id(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(PeerId::from_public_key(&PublicKey::from(key)))
}

/// The node of a peer id; `None` if the id is not that of an ed25519 key fit for an identity.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    let octets = peer.to_bytes();
    let key = octets.strip_prefix(&PEER_ID_PREFIX)?;
    let node = NodeId::from_bytes(key.try_into().ok()?);
    node.check().ok()?;
    Some(node)
}

pub(crate) fn multiaddr(onion: &OnionAddress) -> Multiaddr {
    Multiaddr::empty().with(Protocol::Onion3((onion.to_raw(), SWARM_PORT).into()))
}

/// The onion address that a multiaddress consists of: `/onion3/<address>:9999`, at most followed by
/// the `/p2p/...` of the same key. Nothing else is dialled.
pub(crate) fn onion_address(address: &Multiaddr) -> Option<OnionAddress> {
    let mut parts = address.iter();
    let Some(Protocol::Onion3(onion)) = parts.next() else { return None };
    if onion.port() != SWARM_PORT {
        return None;
    }
    let onion = OnionAddress::from_raw(onion.hash()).ok()?;
    match (parts.next(), parts.next()) {
        (None, None) => Some(onion),
        (Some(Protocol::P2p(peer)), None) if node_id(&peer) == Some(onion.node()) => Some(onion),
        _ => None,
    }
}

/// A node's key in libp2p's form. It lives as long as the swarm, and libp2p does not wipe it.
pub(crate) fn keypair(identity: &Identity) -> Result<Keypair, identity::DecodingError> {
    let secret = ed25519::SecretKey::try_from_bytes(identity.seed().as_mut_slice())?;
    Ok(ed25519::Keypair::from(secret).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        Identity::from_seed(&[3; 32]).node()
    }

    #[test]
    fn identity_address_and_peer_id_are_one_thing() {
        let identity = Identity::from_seed(&[3; 32]);
        let peer = keypair(&identity).unwrap().public().to_peer_id();
        assert_eq!(peer_id(&node()), Some(peer));
        assert_eq!(node_id(&peer), Some(node()));
        let onion = OnionAddress::of(node()).unwrap();
        assert_eq!(onion_address(&multiaddr(&onion)), Some(onion));
        let with_peer = multiaddr(&onion).with(Protocol::P2p(peer));
        assert_eq!(onion_address(&with_peer), Some(onion));
    }

    #[test]
    fn nothing_else_is_an_address() {
        let onion = OnionAddress::of(node()).unwrap();
        let label = &onion.to_string()[..56];
        let wrong = label.replacen(&label[..1], if label.starts_with('a') { "b" } else { "a" }, 1);
        let other = peer_id(&Identity::from_seed(&[4; 32]).node()).unwrap();
        for bad in [
            "/ip4/127.0.0.1/tcp/9999".to_owned(),
            "/ip6/::1/tcp/9999".into(),
            "/dns4/example.org/tcp/9999".into(),
            format!("/onion3/{label}:80"),
            format!("/onion3/{wrong}:9999"),
            format!("/onion3/{label}:9999/tcp/1"),
            format!("/onion3/{label}:9999/ws"),
            format!("/onion3/{label}:9999/p2p-circuit"),
            format!("/onion3/{label}:9999/p2p/{other}"),
            format!("/onion3/{label}:9999/p2p/{other}/p2p-circuit"),
        ] {
            let address: Multiaddr = bad.parse().unwrap();
            assert_eq!(onion_address(&address), None, "{bad}");
        }
        let rsa_like = PeerId::from_bytes(&[&[0x12, 0x20][..], &[7; 32]].concat()).unwrap();
        assert_eq!(node_id(&rsa_like), None);
    }
}
