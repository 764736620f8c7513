"""Makes, peels and answers the vectors with an implementation of its own, written from SPEC.md and
nothing else.

python3 peel.py FOLDER-OF-VECTORS

It says nothing and returns 0 if every vector is what it says, octet for octet. Section numbers
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
HEADER, TAG = 7186, 16
REPLY_CONTEXT = "fog-v1 sphinx suite 1: stream of a reply"
FORWARD, REPLY, TO_STREAM, ENDS = 0, 2, 5, (1, 3, 4)


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


def xor(octets, other):
    return bytes(a ^ b for a, b in zip(octets, other))


def open_header(header, said, hop, number):
    """One hop's keys and block, and the header that it sends on (sections 3 and 4)."""
    node, seed = bytes.fromhex(said[f"hop {hop} node"]), bytes.fromhex(said[f"hop {hop} seed"])
    fields = Fields(header)
    assert fields.take(2) == VERSION_AND_SUITE, "version"
    epoch = fields.number(4)
    assert epoch == int(said[f"hop {hop} epoch"]), "epoch"
    ciphertext, mac, routing = fields.take(CIPHERTEXT), fields.take(MAC), fields.take(ROUTING)
    mac_key, stream_key, payload_key, tag = hop_keys(MixKey(seed), node, epoch, number, ciphertext)
    covered = header[: 6 + CIPHERTEXT] + routing
    assert blake3.blake3(covered, key=mac_key).digest()[:MAC] == mac, "header MAC"
    assert tag.hex() == said[f"hop {hop} replay tag"], "replay tag"

    region = xor(routing + bytes(BLOCK), stream(stream_key, ROUTING + BLOCK))
    fields = Fields(region)
    block = {"payload key": payload_key, "next": fields.take(32), "delay": fields.number(4)}
    block["kind"], block["class"] = fields.number(1), fields.number(1)
    block["next epoch"], block["tag"], block["next mac"] = fields.number(4), fields.take(16), fields.take(MAC)
    assert block["class"] == number, "class"
    assert block["delay"] == int(said[f"hop {hop} delay"]), "delay"
    if ends(block):
        assert block["next epoch"] == 0 and not any(block["next mac"]), "a last block"
        return block, None
    assert block["next"] == bytes.fromhex(said[f"hop {hop + 1} node"]), "next node"
    assert epoch - 1 <= block["next epoch"] <= epoch + 2, "next epoch"
    clear = VERSION_AND_SUITE + block["next epoch"].to_bytes(4, "big") + fields.take(CIPHERTEXT)
    return block, clear + block["next mac"] + region[BLOCK:]


def ends(block):
    """Whether the route ends at this block (section 4)."""
    if block["kind"] == REPLY:
        return not any(block["next"][:16])
    assert block["kind"] in (FORWARD, TO_STREAM, *ENDS), "kind"
    return block["kind"] != FORWARD


def is_of_reply(block):
    return block["kind"] == REPLY or (block["kind"] == TO_STREAM and any(block["next"][16:]))


def reply_stream(payload_key, length):
    key = blake3.blake3(payload_key, derive_key_context=REPLY_CONTEXT).digest()
    return stream(key, length)


def peel(packet, said, hop):
    """One hop (sections 4 to 7): its block, and what it sends on or ends with."""
    assert len(packet) % 1024 == 0
    number = CLASSES_KIB.index(len(packet) // 1024)
    header, payload = packet[:HEADER], packet[HEADER:]
    block, next_header = open_header(header, said, hop, number)
    key = block["payload key"]
    if not is_of_reply(block):
        payload = AESGCM(key).decrypt(bytes(12), payload + block["tag"], None)
    elif next_header is not None or block["kind"] == TO_STREAM:
        payload = xor(payload, reply_stream(key, len(payload)))
    if next_header is not None:
        sent = next_header + payload
        assert blake3.blake3(sent).hexdigest() == said[f"hop {hop} sends blake3"], "what it sends"
        return block, sent
    assert block["kind"] == int(said[f"hop {hop} kind"]), "kind"
    return block, payload


def follow(packet, said):
    """Every hop: their blocks, and the payload at the end."""
    if "packet blake3" in said:
        assert blake3.blake3(packet).hexdigest() == said["packet blake3"], "the packet"
    blocks = []
    while f"hop {len(blocks)} node" in said:
        block, packet = peel(packet, said, len(blocks))
        blocks.append(block)
    assert ends(blocks[-1]) and not any(map(ends, blocks[:-1])), "where the route ends"
    return blocks, packet


def lay_out(content, reply_block, number):
    """The innermost payload (section 5)."""
    flag, room = (1, reply_block) if reply_block else (0, bytes(REPLY_BLOCK))
    laid = bytes([flag]) + len(content).to_bytes(4, "big") + room + content
    return laid.ljust(CLASSES_KIB[number] * 1024 - HEADER, b"\0")


def check_end(said, last, plain, content):
    if last["kind"] == TO_STREAM:
        assert last["next"] == bytes.fromhex(said["token"]) + bytes(16), "token, no name"
    else:
        assert not any(last["next"]), "a last block"
    inner = Fields(plain)
    flag, length, room = inner.number(1), inner.number(4), inner.take(REPLY_BLOCK)
    block = bytes.fromhex(said.get("reply block", ""))
    assert (flag, room) == ((1, block) if block else (0, bytes(REPLY_BLOCK))), "reply block"
    assert inner.take(length) == content, "content"


def check_whole(said):
    """A vector that has the octets of a packet."""
    blocks, plain = follow(bytes.fromhex(said["packet"]), said)
    check_end(said, blocks[-1], plain, bytes.fromhex(said[f"hop {len(blocks) - 1} content"]))


def check_forward(said):
    """A vector that has a header and a content: the payload is made from them."""
    number, header = int(said["class"]), bytes.fromhex(said["header"])
    content = bytes.fromhex(said["content"])
    blocks, walked = [], header
    while walked is not None:
        block, walked = open_header(walked, said, len(blocks), number)
        blocks.append(block)
    payload = lay_out(content, bytes.fromhex(said.get("reply block", "")), number)
    for block in reversed(blocks):
        sealed = AESGCM(block["payload key"]).encrypt(bytes(12), payload, None)
        payload, tag = sealed[:-TAG], sealed[-TAG:]
        assert tag == block["tag"], "payload tag"
    blocks, plain = follow(header + payload, said)
    check_end(said, blocks[-1], plain, content)


def check_reply(said):
    """A vector that has a reply block: the answer is made with it, carried and opened (section 5)."""
    fields = Fields(bytes.fromhex(said["reply block"]))
    first, header, key = fields.take(32), fields.take(HEADER), fields.take(32)
    number, last = fields.number(1), fields.number(4)
    assert number == int(said["class"]) and not fields.rest
    assert first == bytes.fromhex(said["hop 0 node"])
    hops = [name for name in said if name.endswith("epoch")]
    assert last == min(int(said[name]) for name in hops), "last epoch"
    content = bytes.fromhex(said["content"])
    room = CLASSES_KIB[number] * 1024 - HEADER - TAG
    plain = (len(content).to_bytes(4, "big") + content).ljust(room, b"\0")
    blocks, payload = follow(header + AESGCM(key).encrypt(bytes(12), plain, None), said)
    end = blocks[-1]
    assert not any(end["tag"]), "no payload tag at the end of a reply"
    token = bytes.fromhex(said["token"]) if end["kind"] == TO_STREAM else bytes(16)
    assert end["next"] == token + bytes.fromhex(said["name"]), "token and name"
    # The owner does not add a stream; the node that hands over to one does.
    for block in blocks if end["kind"] == TO_STREAM else blocks[:-1]:
        payload = xor(payload, reply_stream(block["payload key"], len(payload)))
    opened = Fields(AESGCM(key).decrypt(bytes(12), payload, None))
    assert opened.take(opened.number(4)) == content, "content"


def main(folder):
    paths = sorted(pathlib.Path(folder).glob("*.txt"))
    assert len(paths) >= 23, "vectors are missing"
    for path in paths:
        said = vector(path)
        if "packet" in said:
            check_whole(said)
        elif "header" in said:
            check_forward(said)
        else:
            check_reply(said)


if __name__ == "__main__":
    main(sys.argv[1])
