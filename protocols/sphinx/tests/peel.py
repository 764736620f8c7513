"""Peels the vectors with an implementation of its own, written from SPEC.md and nothing else.

python3 peel.py FOLDER-OF-VECTORS

It says nothing and returns 0 if every vector peels to what it says, octet for octet. Section numbers
are those of SPEC.md.
"""

import pathlib
import sys

import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kyber_py.ml_kem import ML_KEM_768

CLASSES_KIB = (16, 24, 32, 48, 64, 96, 128, 192, 256)
VERSION_AND_SUITE = bytes([2, 1])
CONTEXT = "fog-v1 sphinx suite 1: keys of a hop"
CIPHERTEXT, MAC, ROUTING, BLOCK, LAST_BLOCK, REPLY_BLOCK = 1120, 16, 6044, 1194, 74, 7255
FORWARD, ENDS = 0, (1, 3, 4)


class Fields:
    """Takes octets from the front of a string, one field after the other."""

    def __init__(self, octets):
        self.rest = octets

    def take(self, count):
        field, self.rest = self.rest[:count], self.rest[count:]
        assert len(field) == count, "too short"
        return field

    def number(self, count):
        return int.from_bytes(self.take(count), "big")


def vector(path):
    """The lines `name = value` of a vector; a value may be empty (introduction)."""
    pairs = (line.split(" =", 1) for line in path.read_text().splitlines())
    return {name: value.strip() for name, value in pairs}


class MixKey:
    """A node's key of one epoch, from its seed (section 2)."""

    def __init__(self, seed):
        scalar, d, z = seed[:32], seed[32:64], seed[64:96]
        self.x25519 = X25519PrivateKey.from_private_bytes(scalar)
        encapsulation, self.decapsulation = ML_KEM_768._keygen_internal(d, z)
        public = self.x25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = public + encapsulation

    def open(self, ciphertext):
        ephemeral = X25519PublicKey.from_public_bytes(ciphertext[:32])
        inner = ML_KEM_768.decaps(self.decapsulation, ciphertext[32:])
        return self.x25519.exchange(ephemeral) + inner


def hop_keys(key, node, epoch, number, ciphertext):
    """mac key, stream key, payload key, replay tag (section 3)."""
    material = b"".join((
        key.open(ciphertext),
        ciphertext,
        blake3.blake3(key.public).digest(),
        node,
        epoch.to_bytes(4, "big"),
        bytes([number]),
    ))
    output = Fields(blake3.blake3(material, derive_key_context=CONTEXT).digest(length=112))
    return output.take(32), output.take(32), output.take(32), output.take(16)


def stream(key, length):
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(length))


def peel(packet, said, hop):
    """One hop (sections 4, 5 and 7). The packet that it sends on, or None at the end of the route."""
    node, seed = bytes.fromhex(said[f"hop {hop} node"]), bytes.fromhex(said[f"hop {hop} seed"])
    assert len(packet) % 1024 == 0
    number = CLASSES_KIB.index(len(packet) // 1024)
    fields = Fields(packet)
    assert fields.take(2) == VERSION_AND_SUITE, "version"
    epoch = fields.number(4)
    assert epoch == int(said[f"hop {hop} epoch"]), "epoch"
    ciphertext, mac, routing = fields.take(CIPHERTEXT), fields.take(MAC), fields.take(ROUTING)
    payload = fields.rest

    keys = hop_keys(MixKey(seed), node, epoch, number, ciphertext)
    mac_key, stream_key, payload_key, tag = keys
    covered = packet[: 6 + CIPHERTEXT] + routing
    assert blake3.blake3(covered, key=mac_key).digest()[:MAC] == mac, "header MAC"
    assert tag.hex() == said[f"hop {hop} replay tag"], "replay tag"

    region = bytes(a ^ b for a, b in zip(routing + bytes(BLOCK), stream(stream_key, ROUTING + BLOCK)))
    block = Fields(region)
    next_node, delay = block.take(32), block.number(4)
    kind, stated_class = block.number(1), block.number(1)
    next_epoch, payload_tag, next_mac = block.number(4), block.take(16), block.take(MAC)
    plain = AESGCM(payload_key).decrypt(bytes(12), payload + payload_tag, None)
    assert stated_class == number, "class"
    assert delay == int(said[f"hop {hop} delay"]), "delay"
    if kind == FORWARD:
        assert next_node == bytes.fromhex(said[f"hop {hop + 1} node"]), "next node"
        assert epoch - 1 <= next_epoch <= epoch + 2, "next epoch"
        header = VERSION_AND_SUITE + next_epoch.to_bytes(4, "big") + block.take(CIPHERTEXT) + next_mac
        sent = header + region[BLOCK:] + plain
        assert blake3.blake3(sent).hexdigest() == said[f"hop {hop} sends blake3"], "what it sends"
        return sent
    assert kind in ENDS and kind == int(said[f"hop {hop} kind"]), "kind"
    assert not any(next_node) and next_epoch == 0 and not any(next_mac), "a last block"
    inner = Fields(plain)
    flag, length = inner.number(1), inner.number(4)
    assert flag == 0 and not any(inner.take(REPLY_BLOCK)), "no reply block"
    assert inner.take(length).hex() == said[f"hop {hop} content"], "content"
    return None


def main(folder):
    paths = sorted(pathlib.Path(folder).glob("*.txt"))
    assert len(paths) >= 3, "no vectors"
    for path in paths:
        said = vector(path)
        packet, hop = bytes.fromhex(said["packet"]), 0
        while packet is not None:
            packet = peel(packet, said, hop)
            hop += 1
        assert f"hop {hop} node" not in said, f"{path.name}: the route ended early"


if __name__ == "__main__":
    main(sys.argv[1])
