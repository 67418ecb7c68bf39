"""Facts about who may use the studio, and what it does with requests that nobody should send."""

import asyncio
import hmac
import http.client
import json
import struct
import threading
import zlib

import pytest
from starlette.routing import Route

from infostylegan.studio import server
from infostylegan.studio.model import Model
from infostylegan.studio.photograph import MAX_BYTES
from infostylegan.studio.security import CONTENT_SECURITY_POLICY, HEADERS, Access, allowed_hosts, is_loopback

from .conftest import picture, raw, serving, settings, wait  # isort: skip


@pytest.fixture
def inside(access):
    """Headers of somebody who may come in."""
    return [
        ("Host", "127.0.0.1:8765"),
        ("Cookie", f"other=1; {access.cookie}={access.session}"),
        ("X-Studio", "1"),
    ]


def replaced(headers, name, *values):
    return [(k, v) for k, v in headers if k != name] + [(name, value) for value in values]


# ---- by which name -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:9000", "[::1]:8765", "127.0.0.1"])
def test_the_machines_own_names_are_answered_at_any_port_since_a_tunnel_may_change_it(app, inside, host):
    assert raw(app, "/api/model", headers=replaced(inside, "Host", host))[0] == 200


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"], ["evil.example:8765"], ["127.0.0.1.evil.example"], ["localhost.evil.example"],
        ["evil.example#127.0.0.1"], ["127.0.0.1@evil.example"], ["127.0.0.1:8765:1"], ["127.0.0.1:x"],
        ["[::1"], ["[::1]x"], ["192.0.2.7"], ["0.0.0.0"], [""], [], ["127.0.0.1", "evil.example"], [":8765"],
    ],
    ids=str,
)  # fmt: skip
def test_a_request_for_another_host_is_refused_whatever_else_it_brings(app, access, inside, hosts):
    """A page elsewhere whose name resolves to this machine (DNS rebinding) cannot choose this header."""
    headers = replaced(inside, "Host", *hosts)
    for path, query in (("/", ""), ("/", f"token={access.token}"), ("/api/model", "")):
        status, found, body = raw(app, path, headers=headers, query=query)
        assert status == 421
        assert "set-cookie" not in found
        assert access.session.encode() not in body


def test_a_studio_for_other_machines_answers_to_addresses_which_rebinding_cannot_forge():
    access = Access("c", hosts=allowed_hosts("0.0.0.0", ["lab.example"]))
    assert all(
        access.knows_host(h) for h in ("192.0.2.7:8765", "[2001:db8::1]", "localhost", "Lab.example:1")
    )
    assert not any(access.knows_host(h) for h in ("evil.example", "192.0.2.7.evil.example", None, ""))
    one = Access("c", hosts=allowed_hosts("192.0.2.7"))
    assert one.knows_host("192.0.2.7:80")
    assert not one.knows_host("192.0.2.8:80")


def test_only_addresses_of_this_machine_are_loopback():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.2", "example.org", ""))


# ---- with which secret ---------------------------------------------------------------------------------


def test_the_token_becomes_a_cookie_that_no_script_can_read_and_leaves_the_address_bar(app, access):
    status, headers, _ = raw(app, "/", headers=[("Host", "127.0.0.1:8765")], query=f"token={access.token}")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert cookie.startswith(f"{access.cookie}={access.session};")
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert access.token not in cookie


def test_every_route_wants_the_cookie(app, access):
    """The token itself is no cookie, the cookie's value no token, and a token opens the front door only."""
    anyone = [("Host", "127.0.0.1:8765"), ("X-Studio", "1")]
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    assert len(paths) > 15
    for path in [*paths, "/nowhere"]:
        path = path.replace("{seed:int}", "1").replace("{index:int}", "1")
        for method in ("GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS"):
            assert raw(app, path, method, anyone)[0] == 401
            wrong = [*anyone, ("Cookie", f"{access.cookie}={access.token}")]
            assert raw(app, path, method, wrong)[0] == 401
            assert raw(app, path, method, anyone, query=f"token={access.session}")[0] == 401
            if path != "/":
                assert raw(app, path, method, anyone, query=f"token={access.token}")[0] == 401


@pytest.mark.parametrize("token", ["", "x", "é", "%00", "a" * 100_000])
def test_a_wrong_token_gives_nothing_away(app, access, token):
    status, headers, body = raw(app, "/", headers=[("Host", "localhost")], query=f"token={token}")
    assert status == 401
    assert "set-cookie" not in headers
    assert access.token.encode() not in body


def test_secrets_are_compared_in_constant_time_and_differ_between_studios(monkeypatch, access):
    compared = []

    def spy(a, b):
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", spy)
    assert access.knows_token(access.token)
    assert not access.knows_token("x")
    assert access.knows_cookie(f"a=b; {access.cookie}=x; broken; {access.cookie}={access.session}")
    assert not access.knows_cookie(f"{access.cookie}x={access.session}")
    assert len(compared) == 4
    assert Access("c").token != Access("c").token
    assert access.token not in repr(access)


# ---- from which page -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", "https://evil.example"), ("Origin", "null"), ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Site", "none"),
    ],
)  # fmt: skip
def test_another_sites_page_changes_nothing(app, inside, name, value):
    for path in ("/api/image", "/api/jobs/walk", "/api/studies/x/votes"):
        assert raw(app, path, "POST", replaced(inside, name, value))[0] == 403


def test_what_changes_something_must_carry_the_pages_own_header(app, inside):
    without = [(k, v) for k, v in inside if k != "X-Studio"]
    for path in ("/api/image", "/api/jobs/photo", "/api/jobs/study"):
        assert raw(app, path, "POST", without)[0] == 403
    assert raw(app, "/api/model", headers=without)[0] == 200


def test_the_pages_own_requests_pass(client):
    own = {"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/image", json=settings(), headers=own).status_code == 200


def test_every_answer_carries_the_policy_and_none_consents_to_other_sites(app, inside, client):
    answers = [raw(app, path, headers=headers)[1] for path, headers in [
        ("/", inside), ("/", []), ("/app.js", inside), ("/nowhere", inside), ("/api/model", inside),
        ("/", [("Host", "evil.example")]), ("/api/studies/x/score", inside),
    ]]  # fmt: skip
    answers.append(dict(client.post("/api/image", content=b"{").headers))
    for headers in answers:
        for name, value in HEADERS.items():
            assert headers[name.lower()] == value
        assert headers["cache-control"] == "no-store"
        assert not any(name.startswith("access-control") for name in headers)
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY


# ---- paths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/..", "/%2e%2e/server.py", "/static/../server.py", "//etc/passwd",
        "/./app.js/..",
        "/server.py", "/..\\server.py", "/app.js\0.css", "/api/studies/../score",
        "/api/studies/..%2f../score",
        "/api/studies/../../secret/rows/x", "/api/studies/made/rows/../study.json",
        "/api/studies/made/rows/%2e%2e",
        "/api/studies/made/rows/..\\study", "/api/studies/made/rows/../../study", "/api/jobs/../x/file",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(app, inside, tmp_path, path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "study.json").write_text('{"secret": 1}')
    (tmp_path / "studies" / "made").mkdir(parents=True)
    (tmp_path / "studies" / "made" / "study.json").write_text('{"secret": 1}')
    status, _, body = raw(app, path, headers=inside)
    assert 400 <= status < 500
    assert b"secret" not in body.replace(b"secret/rows", b"")
    assert str(tmp_path).encode() not in body or b"damaged" in body


@pytest.mark.parametrize("rater", ["", "..", "../x", "a/b", "a\0b", "a" * 65, ".hidden", "a\nb", "-x"])
def test_a_raters_name_is_never_a_path(client, tmp_path, rater):
    job = wait(client, client.post("/api/jobs/study", json=STUDY).json())
    name = job["result"]["name"]
    before = sorted(path for path in tmp_path.rglob("*"))
    assert client.get(f"/api/studies/{name}", params={"rater": rater}).status_code == 400
    vote = {"rater": rater, "item": "r0000", "answer": True}
    answer = client.post(f"/api/studies/{name}/votes", json=vote)
    assert answer.status_code == 400
    assert "rater" in answer.json()["error"]
    assert sorted(path for path in tmp_path.rglob("*")) == before


STUDY = {"code": "unif0", "attribute": "../../etc/passwd", "samples": 2, "seed": 0}


def test_a_studys_name_is_made_safe(client, tmp_path):
    names = [wait(client, client.post("/api/jobs/study", json=STUDY).json())["result"]["name"] for _ in "ab"]
    assert names == ["etc-passwd", "etc-passwd-2"]
    assert sorted(path.name for path in (tmp_path / "studies").iterdir()) == names


# ---- bodies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/api/image", server.MAX_JSON), ("/api/jobs/photo", MAX_BYTES)],
    ids=["JSON", "upload"],
)
def test_a_body_too_large_is_left_unread(app, inside, path, limit):
    """Where its length is told it is not read at all, else no further than the limit."""
    read = 0

    def endless():
        nonlocal read
        read += 1 << 16
        return b"x" * (1 << 16)

    told = [*inside, ("Content-Length", str(limit + 1))]
    assert raw(app, path, "POST", told, endless)[0] == 413
    assert read == 0
    assert raw(app, path, "POST", inside, endless)[0] == 413
    assert read <= limit + (2 << 16)


def test_a_request_that_never_ends_is_given_up(app, inside, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.05)

    async def trickle():
        await asyncio.sleep(0.02)
        return b" "

    assert raw(app, "/api/image", "POST", inside, trickle)[0] == 408
    assert raw(app, "/api/jobs/photo", "POST", inside, trickle)[0] == 408
    assert not app.state.studio._uploading


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"[" * 60_000, b'{"seed": 1' + b"0" * 5000 + b"}"],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_a_request_that_is_no_json_object_gets_one_line(client, body):
    for path in ("/api/image", "/api/strip", "/api/jobs/walk", "/api/studies/x/votes"):
        answer = client.post(path, content=body)
        assert answer.status_code == 400
        assert set(answer.json()) == {"error"}
        assert "\n" not in answer.json()["error"]


BAD = [
    {"seed": -1}, {"seed": 2**32}, {"seed": 0.5}, {"seed": True}, {"seed": "1"}, {"seed": None},
    {"seed": [1]},
    {"psi": -0.1}, {"psi": 9}, {"psi": "1"}, {"psi": {}}, {"codes": []}, {"codes": {"cat0": 3}},
    {"codes": {"cat0": 0.5}}, {"codes": {"bern0": 2}}, {"codes": {"unif0": 1.01}}, {"codes": {"unif0": "1"}},
    {"codes": {"nosuch": 0}}, {"photo": "nosuch"}, {"photo": 7}, {"photo": "x" * 65},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD, ids=str)
def test_settings_that_no_generator_can_follow_are_refused_in_one_line(client, change):
    document = {**settings(), **change}
    for path, more in (("/api/image", {}), ("/api/strip", {"code": "unif0"})):
        answer = client.post(path, json={**document, **more})
        assert answer.status_code == 400, path
        assert "\n" not in answer.json()["error"]
    assert client.post("/api/image", json=settings()).status_code == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_numbers_that_no_float_holds_are_refused(client, number):
    for key in ("seed", "psi"):
        body = json.dumps({**settings(), key: "@"}).replace('"@"', number)
        assert client.post("/api/image", content=body).status_code == 400
    body = json.dumps(settings(codes={"unif0": "@"})).replace('"@"', number)
    assert client.post("/api/image", content=body).status_code == 400


# ---- uploads -------------------------------------------------------------------------------------------


def bomb(width, height):
    """A PNG of a few dozen bytes that declares width × height pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no image"), (b"not an image at all", "no image"), (picture()[:60], ""), (picture()[:-200], ""),
        (picture(format="GIF"), "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image"), (picture(8), "smaller than 16x16"),
        (bomb(30_000, 30_000), "million pixels"), (bomb(9_000, 9_000), "million pixels"),
        (bomb(2**31 - 1, 2**31 - 1), ""), (bomb(0, 0), ""),
    ],
    ids=["empty", "text", "head", "cut", "gif", "eps", "svg", "small", "bomb", "bomb81", "overflow", "none"],
)  # fmt: skip
def test_an_upload_that_is_no_usable_image_is_refused_with_the_reason(client, content, words):
    job = wait(client, client.post("/api/jobs/photo", content=content).json())
    assert job["state"] == "failed"
    assert words in job["error"]
    assert "\n" not in job["error"]
    assert "terminal" not in job["error"]
    assert client.post("/api/image", json=settings()).status_code == 200


def test_a_second_upload_is_turned_away_before_it_is_read(app, client, inside):
    app.state.studio._uploading = True
    read = []
    assert raw(app, "/api/jobs/photo", "POST", inside, lambda: read.append(1) or b"x")[0] == 409
    assert read == []


def test_a_fault_of_the_program_tells_a_page_nothing(client, capfd, monkeypatch):
    def fault(*args):
        raise RuntimeError("a secret path /home/somebody")

    monkeypatch.setattr("infostylegan.studio.photos.read_photograph", fault)
    job = wait(client, client.post("/api/jobs/photo", content=picture()).json())
    assert job["state"] == "failed"
    assert "secret" not in job["error"]
    assert "RuntimeError" in capfd.readouterr().err


# ---- many at once --------------------------------------------------------------------------------------


def test_64_clients_at_once_are_all_served_one_inference_at_a_time_in_bounded_memory(
    snapshot, access, tmp_path
):
    model = Model(snapshot)
    app = server.make_app(model, tmp_path, access)
    drawing, most = 0, 0
    draw = model.pixels

    def counted(wanted):
        nonlocal drawing, most
        drawing += 1
        most = max(most, drawing)
        try:
            return draw(wanted)
        finally:
            drawing -= 1

    model.pixels = counted
    statuses = []
    headers = {"Cookie": f"{access.cookie}={access.session}", "X-Studio": "1"}

    def browse(address, number, gate):
        gate.wait()
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        for step in range(3):
            body = json.dumps(settings(seed=number, codes={"unif0": step / 3}))
            connection.request("POST", "/api/image", body, headers)
            answer = connection.getresponse()
            statuses.append((answer.status, answer.read()[:4]))
        # Some go away in the middle of it, some send what they should not.
        if number % 4 == 0:
            connection.request("POST", "/api/image", body, headers)
        elif number % 4 == 1:
            connection.request("POST", "/api/jobs/photo", b"x" * 100_000, headers)
            statuses.append((connection.getresponse().status, None))
        connection.close()

    with serving(app) as address:
        before = resident()
        gate = threading.Barrier(64)
        threads = [threading.Thread(target=browse, args=(address, n, gate)) for n in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        pictures = [status for status in statuses if status[1] is not None]
        assert pictures == [(200, b"\x89PNG")] * (3 * 64)
        assert {status for status, mark in statuses if mark is None} <= {202, 409}
        assert most == 1
        assert resident() - before < 200 << 20
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        connection.request("POST", "/api/image", json.dumps(settings()), headers)
        assert connection.getresponse().status == 200
        connection.close()
    assert app.state.studio._waiting == 0


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_beyond_a_full_queue_the_answer_is_later(app, inside, monkeypatch):
    monkeypatch.setattr(app.state.studio, "_waiting", server.MAX_WAITING)
    body = iter([json.dumps(settings()).encode(), b""])
    headers = [*inside]

    async def once():
        sent = []

        async def receive():
            return {"type": "http.request", "body": next(body), "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/api/image", "query_string": b"", "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers], "http_version": "1.1",
            "scheme": "http", "server": ("127.0.0.1", 8765), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        await app(scope, receive, send)
        return sent[0]["status"]

    assert asyncio.run(once()) == 503


def test_memory_of_the_past_is_bounded(client, app):
    """Only the last jobs and photographs can still be asked for."""
    ids = []
    for _ in range(7):
        job = wait(client, client.post("/api/jobs/photo", content=b"").json())
        ids.append(job["id"])
    found = [client.get(f"/api/jobs/{id}").status_code for id in ids]
    assert found == [404] * 3 + [200] * 4
