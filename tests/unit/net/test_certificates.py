"""Which certificate a client is shown, and how changed files come into use."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from mta.config.settings import KeyPair, Tls
from mta.net.certificates import LIFETIME, CertificateError, CertificateStore, Policy, make_context, read_file
from mta.protocol.clienthello import TLS_1_2, TLS_1_3, ClientHello
from tests.kit.authority import Authority

MX = Policy()
EVERYTHING = (0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401)
RSA_ONLY = (0x0804, 0x0805, 0x0806, 0x0401)
AUTHORITY = Authority()


def hello(name: str = "", signatures: tuple[int, ...] = EVERYTHING) -> ClientHello:
    return ClientHello(versions=(TLS_1_3, TLS_1_2), ciphers=(0x1301,), server_name=name, signatures=signatures)


def old_hello(ciphers: tuple[int, ...], groups: tuple[int, ...] = (29, 23, 24)) -> ClientHello:
    return ClientHello(versions=(TLS_1_2,), ciphers=ciphers, signatures=EVERYTHING, groups=groups)


def tls(first: KeyPair, *more: KeyPair, client_ca: Path | None = None) -> Tls:
    return Tls(certificate=first.certificate, key=first.key, certificates=more, client_ca=client_ca)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, KeyPair]:
    folder = tmp_path_factory.mktemp("pairs")
    return {
        "rsa": AUTHORITY.issue(folder, "rsa", ["mx.test", "smtp.test"], key="rsa"),
        "p256": AUTHORITY.issue(folder, "p256", ["mx.test"]),
        "p384": AUTHORITY.issue(folder, "p384", ["mx.test"], key="p384"),
        "ed25519": AUTHORITY.issue(folder, "ed25519", ["mx.test"], key="ed25519"),
        "wild": AUTHORITY.issue(folder, "wild", ["*.example.org"]),
        "exact": AUTHORITY.issue(folder, "exact", ["a.example.org"]),
        "nameless": AUTHORITY.issue(folder, "nameless", []),
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mx.test", "rsa"),
        ("smtp.test", "rsa"),
        ("", "rsa"),
        ("unknown.test", "rsa"),
        ("a.example.org", "exact"),
        ("b.example.org", "wild"),
        ("example.org", "rsa"),
        ("x.b.example.org", "rsa"),
    ],
)
def test_by_name(pairs: dict[str, KeyPair], name: str, shown: str) -> None:
    store = CertificateStore(tls(pairs["rsa"], pairs["wild"], pairs["exact"]), [MX], 0.0)
    assert store.choose(hello(name), MX).certificate == read_file(pairs[shown].certificate)


def test_without_names_the_first_is_still_the_default(pairs: dict[str, KeyPair]) -> None:
    store = CertificateStore(tls(pairs["nameless"], pairs["exact"]), [MX], 0.0)
    assert store.choose(hello("mx.test"), MX).certificate == read_file(pairs["nameless"].certificate)


@pytest.mark.parametrize(
    ("kinds", "said", "shown"),
    [
        (("rsa", "p256"), hello("mx.test"), "p256"),
        (("rsa", "p256"), hello(), "p256"),
        (("rsa", "p256"), hello("mx.test", RSA_ONLY), "rsa"),
        (("p256", "rsa"), hello("mx.test", RSA_ONLY), "rsa"),
        (("rsa", "p256"), hello("smtp.test"), "rsa"),  # the other one is not for this name
        (("p384", "p256"), hello("mx.test", (0x0403, 0x0804)), "p256"),
        (("ed25519", "p256", "rsa"), hello("mx.test"), "ed25519"),
        (("ed25519", "p256", "rsa"), hello("mx.test", (0x0403,)), "p256"),
        (("p256", "p384"), hello("mx.test", RSA_ONLY), "p256"),  # nothing fits: TLS will say so
        (("rsa", "p256"), old_hello((0xC02B, 0xC02F)), "p256"),
        (("rsa", "p256"), old_hello((0xC02F,)), "rsa"),
        (("rsa", "p384"), old_hello((0xC02B, 0xC02F), groups=(29, 23)), "rsa"),
        (("rsa", "p384"), old_hello((0xC02B, 0xC02F), groups=()), "p384"),
        (("rsa", "p256"), ClientHello(versions=(TLS_1_2,), ciphers=(0xC02B, 0xC02F)), "rsa"),
    ],
)
def test_by_what_the_client_can_use(
    pairs: dict[str, KeyPair], kinds: tuple[str, ...], said: ClientHello, shown: str
) -> None:
    store = CertificateStore(tls(*(pairs[kind] for kind in kinds)), [MX], 0.0)
    assert store.choose(said, MX).certificate == read_file(pairs[shown].certificate)


def test_listeners_of_different_policies_share_no_context(pairs: dict[str, KeyPair]) -> None:
    submission = Policy("submission")
    store = CertificateStore(tls(pairs["rsa"]), [MX, submission, MX], 0.0)
    assert store.choose(hello(), MX).context is store.choose(hello(), MX).context
    assert store.choose(hello(), MX).context is not store.choose(hello(), submission).context


def test_a_context_takes_nothing_weak(pairs: dict[str, KeyPair]) -> None:
    context = make_context(pairs["rsa"])
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) and "CBC" not in name for name in names)
    assert all("GCM" in name or "CHACHA20" in name for name in names)
    for option in (ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION, ssl.OP_CIPHER_SERVER_PREFERENCE):
        assert context.options & option
    assert context.verify_mode == ssl.CERT_NONE


@pytest.fixture
def own(tmp_path: Path) -> KeyPair:
    return AUTHORITY.issue(tmp_path, "own", ["mx.test"])


def shown(store: CertificateStore) -> bytes:
    return store.choose(hello(), MX).certificate.digest


def test_a_changed_file_comes_into_use_when_it_stays_as_it_is(own: KeyPair, tmp_path: Path) -> None:
    store = CertificateStore(tls(own), [MX], 0.0)
    before, context = shown(store), store.choose(hello(), MX).context
    assert store.refresh(1.0) == []
    AUTHORITY.issue(tmp_path, "own", ["mx.test", "new.test"])
    assert store.refresh(2.0) == []  # it may be half of a change
    assert shown(store) == before
    assert store.refresh(3.0) == [f"{own.certificate} is in use"]
    assert shown(store) != before
    assert store.choose(hello("new.test"), MX).context is not context
    assert store.refresh(4.0) == []


@pytest.mark.parametrize("damage", ["text", "key of another", "gone", "empty"])
def test_a_broken_file_leaves_the_old_one_in_use_and_is_told_once(own: KeyPair, tmp_path: Path, damage: str) -> None:
    store = CertificateStore(tls(own), [MX], 0.0)
    before = shown(store)
    if damage == "gone":
        own.certificate.unlink()
    elif damage == "key of another":
        os.replace(AUTHORITY.issue(tmp_path, "other", []).key, own.key)
    else:
        own.certificate.write_text("nonsense\n" if damage == "text" else "")
    told = [store.refresh(float(second)) for second in range(1, 6)]
    assert [len(lines) for lines in told] == [0, 1, 0, 0, 0]
    assert str(own.certificate) in told[1][0]
    assert told[1][0].endswith("; the certificate in use stays")
    assert shown(store) == before
    AUTHORITY.issue(tmp_path, "own", ["mx.test"])
    assert [len(store.refresh(float(second))) for second in range(6, 9)] == [0, 1, 0]
    assert shown(store) != before


def test_of_several_only_the_changed_one_is_loaded(own: KeyPair, tmp_path: Path) -> None:
    other = AUTHORITY.issue(tmp_path, "other", ["other.test"])
    store = CertificateStore(tls(own, other), [MX], 0.0)
    kept = store.choose(hello(), MX).context
    AUTHORITY.issue(tmp_path, "other", ["other.test"])
    store.refresh(1.0)
    assert store.refresh(2.0) == [f"{other.certificate} is in use"]
    assert store.choose(hello(), MX).context is kept


def test_ticket_keys_do_not_live_for_ever(own: KeyPair) -> None:
    store = CertificateStore(tls(own), [MX], 0.0)
    context = store.choose(hello(), MX).context
    store.refresh(LIFETIME - 1)
    assert store.choose(hello(), MX).context is context
    assert store.refresh(LIFETIME + 1) == []
    assert store.choose(hello(), MX).context is not context


def test_a_changed_authority_of_clients_counts_as_a_change(own: KeyPair, tmp_path: Path) -> None:
    policy = Policy("submission", "require")
    ca = Authority(tmp_path, "clients").path
    store = CertificateStore(tls(own, client_ca=ca), [policy], 0.0)
    assert store.choose(hello(), policy).context.verify_mode == ssl.CERT_REQUIRED
    Authority(tmp_path, "clients")
    store.refresh(1.0)
    assert len(store.refresh(2.0)) == 1


@pytest.mark.parametrize("wrong", ["certificate", "key", "client_ca"])
def test_at_the_start_everything_must_be_right(own: KeyPair, tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "wrong"
    file.write_text("nonsense")
    settings = Tls(
        certificate=file if wrong == "certificate" else own.certificate,
        key=file if wrong == "key" else own.key,
        client_ca=file if wrong == "client_ca" else None,
    )
    with pytest.raises(CertificateError, match=f"{file}.*cannot be used"):
        CertificateStore(settings, [Policy("submission", "ask")], 0.0)
    with pytest.raises(CertificateError, match=r"needs \[tls\] certificate"):
        CertificateStore(Tls(), [MX], 0.0)
