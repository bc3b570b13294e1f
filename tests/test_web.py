"""The server's surface, as strangers and strangers' pages meet it: rows S1 to S11 of the reliability table."""

import ast
import asyncio
import io
import json
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio import route_utils
from gradio.state_holder import SessionState, StateHolder
from PIL import Image
from reliability import measured
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from visitor import Refusal, Visitor, file, raw, running, server

from analysis.legends import legend
from analysis.library import Library
from analysis.serving import serving
from analysis.tabs import compare, guard
from analysis.tabs.cache import go_on_removing
from analysis.tabs.sessions import keep_no_description, keep_while_used
from analysis.tabs.words import as_gr_error, failures_in_words, sentence
from wsss import UserError, checkpoint
from wsss.config import from_dict
from wsss.network import build
from wsss.presets import tiny
from wsss.state import newest_whole

pytestmark = pytest.mark.reliability

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "analysis" / "examples" / "chelsea.jpg"
FILE = "/gradio_api/file="


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(out, "PNG")
    return out.getvalue()


# S1, S2: files of the server


def outside_paths(tmp_path: Path) -> list[str]:
    """Targets that ask for files which are not the visitor's."""
    secret, link = tmp_path / ".env", tmp_path / "link"
    secret.write_text("root:")
    link.symlink_to("/etc/passwd")
    absolute = [
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/cmdline",
        "/dev/zero",
        str(secret),
        "/root/.ssh/id_rsa",
    ]
    ours = [ROOT / name for name in ("app.py", "README.md", ".git/config", "checkpoints/animals/config.json", "runs")]
    up = ["../" * depth + "etc/passwd" for depth in (1, 3, 8)]
    up += ["..%2f" * 8 + "etc%2fpasswd", "....//" * 8 + "etc/passwd", "%2e%2e/" * 8 + "etc/passwd", "..%5c..%5cetc"]
    schemes = ["file:///etc/passwd", "http://127.0.0.1:22/", "ftp://x/y", "data:text/html,x", "//evil.example/x"]
    odd = [
        "\\\\evil\\share\\x",
        "C:%5Cwindows%5Cwin.ini",
        "/etc/passwd%00.png",
        "%00",
        "app.py",
        "checkpoints",
        "~/.bashrc",
    ]
    named = [*absolute, *map(str, ours), *up, *schemes, *odd, str(link)]
    static = [
        f"/{base}/{up[2]}" for base in ("static", "assets", "gradio_api/static", "gradio_api/assets", "theme.css")
    ]
    return [f"{FILE}{name}" for name in named] + static + ["/app.py", "/../app.py", "/%2e%2e/app.py", "/runs/", "/.env"]


def test_no_file_of_the_machine_is_handed_out(address, tmp_path):
    targets = outside_paths(tmp_path)
    answers = {target: raw(address, target.replace(" ", "%20")) for target in targets}
    leaks = {t: a.status for t, a in answers.items() if a.status not in (400, 403, 404) or b"root:" in a.body}
    measured(
        "S1", f"{len(targets) - len(leaks)}/{len(targets)} refused {leaks or ''}", "all refused, 0 bytes", not leaks
    )


def test_the_work_tree_is_not_served(address):
    parts = ("wsss", "analysis", "tests", "checkpoints", ".git")
    files = [path for part in parts for path in [p for p in (ROOT / part).rglob("*") if p.is_file()][:30]]
    served = [path for path in files if raw(address, f"{FILE}{path}".replace(" ", "%20")).status == 200]
    measured("S2", f"{len(served)}/{len(files)} served", "0 served", not served and len(files) >= 100)


# S3, S4: what is uploaded


def test_an_upload_never_comes_back_as_a_page(address):
    visitor, safe, sniffed = Visitor(address), 0, 0
    active = ("x.html", "x.svg", "x.xhtml", "x.js", "x.pdf", "x")
    for name in (*active, "x.png", "x.jpg", "x.txt", "x.json"):
        got = raw(address, f"{FILE}{visitor.upload(name, b'<script>alert(1)</script>')['path']}")
        assert got.status == 200
        sniffed += got.headers["x-content-type-options"] == "nosniff"
        is_download = got.headers.get("content-disposition", "").startswith("attachment")
        safe += is_download and got.headers["content-type"].startswith("application/octet-stream") or name not in active
    visitor.close()
    measured("S3", f"{safe}/10 inert, {sniffed}/10 nosniff", "10/10, 10/10", safe == sniffed == 10)


NAMES = [
    "../../../x.png",
    "..\\..\\x.png",
    "/etc/cron.d/x.png",
    "a" * 300 + ".png",
    "x\0.png",
    "x;rm -rf $HOME;.png",
    "`id`.png",
    "<img src=x onerror=alert(1)>.png",
    "CON.png",
    ".hidden",
    "..",
    "%2e%2e%2fx.png",
    "ü\u202egnp.exe",
    "",
]


def test_an_upload_lands_in_the_private_folder_whatever_its_name(address):
    statuses, outside = [], []
    for name in NAMES:
        head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body = head + png() + b"\r\n--b--\r\n"
        got = raw(address, "/gradio_api/upload", "POST", body, Content_Type="multipart/form-data; boundary=b")
        statuses.append(got.status)
        if got.status == 200:
            outside += [path for path in json.loads(got.body) if not is_private(path)]
    failed = [status for status in statuses if status >= 500]
    measured("S4", f"{len(outside)} outside, {len(failed)} answers 5xx", "0, 0", not outside and not failed)


def is_private(path: str) -> bool:
    folder = next((part for part in Path(path).resolve().parents if part.name.startswith("wsss-page-")), None)
    return folder is not None and folder.parent == Path(tempfile.gettempdir()) and folder.stat().st_mode & 0o077 == 0


# S5, S6: bodies and origins


def pieces(size: int):
    for _ in range(size // 2**16):
        yield b" " * 2**16


def test_what_is_too_large_is_refused_before_it_takes_memory(address):
    visitor = Visitor(address)
    visitor.warm(visitor.upload("x.png", png()), "cat")
    visitor.close()
    before = server(address).memory_info().rss
    json_type = {"Content_Type": "application/json"}
    join, upload = "/gradio_api/queue/join", "/gradio_api/upload"
    form = {"Content_Type": "multipart/form-data; boundary=b"}
    statuses = [
        raw(address, upload, "POST", upload_body(b" " * 30 * 2**20), **form).status,
        raw(address, upload, "POST", b"", **form, Content_Length=str(guard.MOST_UPLOAD + 1)).status,
        raw(address, upload, "POST", FIELD + b" " * 60 * 2**20 + b"\r\n--b--\r\n", **form).status,
        raw(address, "/gradio_api/call/upload", "POST", b" " * 60 * 2**20, **json_type).status,
        raw(address, join, "POST", b" " * 60 * 2**20, **json_type).status,
        raw(address, join, "POST", pieces(60 * 2**20), **json_type).status,
        raw(address, join, "POST", b"[" * 100_000 + b"]" * 100_000, **json_type).status,
        raw(address, join, "POST", b"{}", **json_type, Content_Length="-1").status,
    ]
    grown = (server(address).memory_info().rss - before) / 2**20
    seen = f"{statuses}, {grown:+.0f} MB"
    right = statuses[:6] == [413, 413, 400, 413, 413, 413] and all(400 <= status < 500 for status in statuses[6:])
    measured("S5", seen, "413, 413, 400, 413, 413, cut, 4xx, 4xx; <= +50 MB", right and grown <= 50)


def test_as_many_photographs_as_compare_takes_come_at_once(address):
    files = [("files", (f"{n}.png", b" " * 8 * 2**20)) for n in range(4)]
    answer = httpx.post(f"{address}/gradio_api/upload", files=files, timeout=60)
    assert answer.status_code == 200 and len(answer.json()) == 4
    assert compare.MOST_PHOTOGRAPHS * guard.MOST_FILE < guard.MOST_UPLOAD


def test_an_upload_that_breaks_off_leaves_no_file(tmp_path):
    async def half():
        yield upload_body()[:200]
        raise ClientDisconnect

    headers = Headers({"Content-Type": "multipart/form-data; boundary=b"})
    parser = guard._FilesOnly(headers, half(), upload_dir=tmp_path, max_file_size=guard.MOST_FILE)
    with pytest.raises(ClientDisconnect):
        asyncio.run(parser.parse())
    assert parser._files_to_close_on_error and not list(tmp_path.iterdir())


def test_only_the_page_itself_and_programs_may_ask(address):
    own = address.removeprefix("http://")
    port = own.rpartition(":")[2]
    pairs = [
        ("GET", own, None, 200),
        ("GET", "evil.example", None, 400),
        ("GET", f"evil.example:{port}", "http://evil.example", 400),
        ("POST", own, "http://evil.example", 403),
        ("POST", own, "null", 403),
        ("POST", own, f"http://{own}.evil.example", 403),
        ("POST", own, f"http://localhost:{int(port) + 1}", 403),
        ("POST", own, f"http://{own}", 200),
        ("POST", own, None, 200),
    ]
    right = 0
    for method, host, origin, wanted in pairs:
        headers = {"Host": host} | ({"Origin": origin} if origin else {})
        target, body = ("/", None) if method == "GET" else ("/gradio_api/upload", upload_body())
        more = {"Content_Type": "multipart/form-data; boundary=b"} if body else {}
        right += raw(address, target, method, body, **headers, **more).status == wanted
    measured("S6", f"{right}/{len(pairs)} as they should be", "all", right == len(pairs))


FIELD = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\n'
"""How a field begins that is no file."""


def upload_body(content: bytes | None = None) -> bytes:
    head = FIELD.replace(b'"files"', b'"files"; filename="x.png"')
    return head + (png() if content is None else content) + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("shapes.example.org", "https://shapes.example.org", 200),  # the proxy hands the name on
        ("127.0.0.1:7860", "https://shapes.example.org", 200),  # it puts ours in its place
        ("127.0.0.1:7860", "https://Shapes.example.org:443", 200),
        ("shapes.example.org", None, 200),
        ("127.0.0.1:7860", "https://shapes.example.org:8443", 403),
        ("127.0.0.1:7860", "https://evil.example", 403),
        ("127.0.0.1:7860", "https://shapes.example.org.evil.example", 403),
        ("shapes.example.org", "https://evil.example", 403),
        ("evil.example", "https://evil.example", 400),
    ],
)
def test_behind_a_proxy_the_page_has_another_name(host, origin, status):
    assert asked_of(guard.Guard(answering, name="shapes.example.org"), host, origin) == status
    if "shapes" in f"{host} {origin}":
        assert asked_of(guard.Guard(answering), host, origin) in (400, 403), "unless it was given"


def test_a_public_name_may_have_a_port():
    door = guard.Guard(answering, name="shapes.example.org:8443")
    for host in ("shapes.example.org:8443", "shapes.example.org", "127.0.0.1:7860"):
        assert asked_of(door, host, "https://shapes.example.org:8443") == 200
    assert asked_of(door, "127.0.0.1:7860", "https://shapes.example.org") == 403


async def answering(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def asked_of(door: guard.Guard, host: str, origin: str | None) -> int:
    """The status of the answer to a POST."""
    told, named = [], {"host": host} | ({"origin": origin} if origin else {})
    headers = [(name.encode(), value.encode()) for name, value in named.items()]

    async def send(message) -> None:
        told.append(message)

    asyncio.run(door({"type": "http", "method": "POST", "path": "/", "headers": headers}, None, send))
    return told[0]["status"]


# S7: names that are HTML

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'><iframe srcdoc='<script>alert(1)</script>'>",
    "<a href=javascript:alert(1)>x</a>",
    "</div><style>*{display:none}</style>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;<b>",
]


def places(payload: str) -> dict[str, str]:
    """What the page shows where a stranger chose a name."""

    def refused(call) -> str:
        with pytest.raises(UserError) as caught:
            call()
        return sentence(str(caught.value))

    mask, colors = np.ones((2, 2), np.uint8), np.zeros((2, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        return {
            "class name": legend(mask, (payload,), colors),
            "file name": refused(lambda: checkpoint.read_config(Path(folder, payload.replace("/", "_")))),
            "dataset name": refused(lambda: from_dict({"dataset": payload})),
            "run name": refused(lambda: newest_whole(Path(folder, payload.replace("/", "_")))),
            "setting": refused(lambda: from_dict({payload: 1})),
            "class that is asked for": sentence(f"there is no class {payload!r}"),
        }


def test_a_name_is_never_html():
    seen = [(where, text) for payload in PAYLOADS for where, text in places(payload).items()]
    allowed = re.compile(r'</?(div|span|i)(?: (?:class|style)="[^"<>]*")*>')
    bad = [where for where, text in seen if "<" in allowed.sub("", text)]
    measured("S7", f"{len(seen) - len(bad)}/{len(seen)} escaped {sorted(set(bad)) or ''}", "all", not bad)


def test_a_visitor_is_told_no_folder_of_the_server():
    assert sentence("/home/jo/my data/x.png: is empty") == "X.png: is empty."
    assert sentence("there is nothing in /srv/data/voc") == "There is nothing in voc."


# S8: names that are paths


@pytest.mark.parametrize(
    ("listens", "called", "let_in"),
    [
        ("fe80::1", "[fe80::1]:7860", True),
        ("127.0.0.1", "[::1]:7860", True),
        ("::", "[2001:db8::5]", True),
        ("fe80::1", "[fe80::2]:7860", False),
        ("127.0.0.1", "[2001:db8::5]:7860", False),
    ],
)
def test_an_ipv6_address_is_called_in_brackets(listens, called, let_in):
    assert guard.Guard(None, host=listens)._is_ours(guard._name(called)) == let_in


UP = ["../../etc/passwd", "/etc/passwd", "/etc/hostname", "..", ".", "/", "//etc/passwd", "file:///etc/passwd"]
UP += ["http://127.0.0.1/x.png", "data:image/png;base64,iVBORw0KGgo=", "%2e%2e/x", "~/.bashrc", "", "\0", str(EXAMPLE)]


FOR_THE_NAME = {
    "segment": "must be uploaded|its log tells more under",  # gradio's own failure: \0
    "photograph": "is not in the list of choices|there is no checkpoint",
    "self_information": "must be uploaded as a file",
}
"""What the refusal of a wrong path or name says."""


def first_values(address: str, endpoint: str) -> list[object]:
    """Of all inputs of an endpoint, as the page that has just been opened has them; the server fills its states."""
    page = json.loads(raw(address, "/config").body)
    values = {part["id"]: part["props"].get("value") for part in page["components"]}
    (asked,) = (question for question in page["dependencies"] if question["api_name"] == endpoint)
    return [values[number] for number in asked["inputs"]]


def test_a_name_never_leads_out_of_its_folder(address):
    visitor, refused, asked = Visitor(address), 0, 0
    picture = visitor.upload("x.png", png())
    checkpoint_name, _, *others = first_values(address, "photograph")
    right = {
        "segment": (picture, 0, False),
        "photograph": (checkpoint_name, picture, *others),
        "self_information": (picture, 7, 1, 9, 3),
    }
    for endpoint, given in right.items():
        assert visitor.ask(endpoint, *given), endpoint
    for path in UP:
        for endpoint, wrong in {
            "segment": file(path),
            "photograph": path,
            "self_information": {"path": None, "url": path, "meta": {"_type": "gradio.FileData"}},
        }.items():
            asked += 1
            try:
                visitor.ask(endpoint, wrong, *right[endpoint][1:])
            except Refusal as error:
                for_it = bool(re.search(FOR_THE_NAME[endpoint], str(error)))
                refused += for_it and "/etc" not in str(error).replace(path, "")
    visitor.close()
    measured("S8", f"{refused}/{asked} refused for the name", "all", refused == asked)


def test_no_address_is_fetched(address):
    visitor = Visitor(address)
    with socket.create_server(("127.0.0.1", 0)) as asked:
        asked.setblocking(False)
        here = f"http://127.0.0.1:{asked.getsockname()[1]}/x.png"
        for url in (here, "https://example.org/x.png", "http://[2001:db8::1]/x.png"):
            with pytest.raises(Refusal, match="A file must be uploaded before it can be used"):
                visitor.ask("segment", file(url), 0, False)
        with pytest.raises(BlockingIOError):  # nobody came
            asked.accept()
    visitor.close()


def test_a_name_past_the_page_s_own_check_is_no_path_either(shipped_or_fresh):
    library = Library([shipped_or_fresh])
    assert library.folder(shipped_or_fresh.name) == shipped_or_fresh
    for path in [*UP, str(shipped_or_fresh)]:
        with pytest.raises(UserError, match="there is no checkpoint"):
            library[path]


# S9: the code itself

BANNED_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "pickle.load"}
BANNED_CALLS |= {"pickle.loads", "marshal.loads", "shelve.open", "subprocess.getoutput", "joblib.load", "dill.load"}
BANNED_KEYWORDS = {"allow_pickle", "shell", "trust_remote_code"}


def faults_of(code: str) -> list[str]:
    """Calls in Python code that could run what a stranger wrote."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in ("pickle", "dill", "marshal", "shelve", "joblib")]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in BANNED_CALLS:
            found.append(ast.unparse(node))  # handed on, or called
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            found += [name] if name in BANNED_CALLS else []
            found += [k for k in BANNED_KEYWORDS & keywords.keys() if ast.unparse(keywords[k]) != "False"]
            if name == "torch.load":
                value = keywords.get("weights_only")
                found += [] if isinstance(value, ast.Constant) and value.value is True else ["torch.load"]
    return found


def test_no_line_can_run_what_a_stranger_wrote():
    wrong = ("torch.load(p)", "torch.load(p, weights_only=safe)", "import pickle", "run(x, shell=True)", "eval(t)")
    for code in (*wrong, "run = os.system", "exec(t)", "np.load(p, allow_pickle=True)"):
        assert faults_of(code), code
    for code in ("torch.load(p, weights_only=True)", "network.eval()", "re.compile(t)"):
        assert not faults_of(code), code
    files = [ROOT / "app.py", *ROOT.glob("wsss/**/*.py"), *ROOT.glob("analysis/**/*.py")]
    faults = [f"{path.name}: {fault}" for path in files for fault in faults_of(path.read_text())]
    measured("S9", f"{len(faults)} in {len(files)} files {faults or ''}", "0", not faults)


# S10: who can reach it


def test_only_this_machine_reaches_the_page_unless_a_password_is_asked(address, capsys):
    listening = {c.laddr.ip for c in server(address).net_connections("inet") if c.status == "LISTEN"}
    refused = []
    for flags in (
        ["--host", "0.0.0.0"],
        ["--host", "::"],
        ["--host", "0.0.0.0", "--auth", "me"],
        ["--auth", "me:short"],
    ):
        with pytest.raises(SystemExit) as ended:
            serving(flags, "")
        said = capsys.readouterr().err
        refused.append(ended.value.code == 2 and "--auth" in said and "Traceback" not in said)
    seen = f"listens on {', '.join(sorted(listening))}; {sum(refused)}/4 exit 2 with a reason"
    measured("S10", seen, "127.0.0.1 alone; 4/4", listening == {"127.0.0.1"} and all(refused))


# S11: failures of ours

FAILURES = [OSError("/work/secret/file"), KeyError("x"), ValueError("/etc/passwd"), RuntimeError("CUDA"), MemoryError()]
FAILURES += [ZeroDivisionError(), TypeError("<b>"), IndexError(), AttributeError("a"), RecursionError(), EOFError()]
FAILURES += [StopAsyncIteration(), NotImplementedError(), UnicodeError("u"), LookupError(), AssertionError("no")]
FAILURES += [FileNotFoundError(2, "No such file", "/work/secret/x"), PermissionError(13, "no", "/root"), BufferError()]
FAILURES += [Exception("/home/me")]


def test_a_failure_of_ours_is_a_sentence_with_a_number_and_the_log_has_the_rest(caplog):
    right = 0
    for error in FAILURES:
        caplog.clear()
        with pytest.raises(gr.Error) as shown, as_gr_error("a test"):
            raise error
        number = re.fullmatch(
            r"Something went wrong on the server; its log tells more under (\w{8})\.", shown.value.message
        )
        right += bool(number) and number[1] in caplog.text and "Traceback" in caplog.text
    measured("S11", f"{right}/{len(FAILURES)} in words, traceback in the log", "all", right == len(FAILURES) == 20)


def test_what_fails_before_a_handler_is_told_in_words_too(address):
    visitor = Visitor(address)
    picture = visitor.upload("x.png", png())
    for endpoint, given in {
        "refine": (picture, {"a": 1}, {}, [], None, "x", 0),
        "segment": (5, 0, False),
        "sweep": (),
    }.items():
        with pytest.raises(Refusal) as refused:
            visitor.ask(endpoint, *given)
        assert str(refused.value) and "Traceback" not in str(refused.value) and str(ROOT) not in str(refused.value)
    visitor.close()


def test_what_gradio_itself_fails_at_gets_a_number():
    with gr.Blocks() as page:
        box = gr.Number()
        page.load(lambda number: number, box, box)
    failures_in_words(page)
    with pytest.raises(gr.Error, match="its log tells more"):
        asyncio.run(page.process_api(0, [], None))


# What is kept of a visitor


def test_the_removal_of_old_files_outlives_an_upload_that_comes_meanwhile(monkeypatch):
    rounds = []

    class Growing(set):
        def __iter__(self):
            rounds.append(1)
            raise RuntimeError("Set changed size during iteration")

    monkeypatch.setattr(route_utils, "delete_files_created_by_app", route_utils.delete_files_created_by_app)
    page, removes = SimpleNamespace(blocks={}, temp_file_sets=[Growing()]), route_utils.delete_files_on_schedule
    go_on_removing()

    async def half_a_second() -> None:
        await asyncio.wait_for(removes(SimpleNamespace(get_blocks=lambda: page), 0.01, 0), 0.5)

    with pytest.raises(TimeoutError):
        asyncio.run(half_a_second())
    assert len(rounds) > 1


def test_a_visitor_s_state_is_kept_without_a_description_of_the_page(monkeypatch):
    monkeypatch.setattr(SessionState, "__init__", SessionState.__init__)  # restored after the test
    with gr.Blocks() as page:
        count, number, text = gr.State(0), gr.Number(), gr.Textbox()
        page.load(lambda n: (n + 1, n + 1, gr.update(label="seen")), count, [count, number, text])
    described = page.get_config_file()
    keep_no_description()
    one, other = SessionState(page), SessionState(page)
    for times in (1, 2):
        _, shown, updated = asyncio.run(page.process_api(0, [None], state=one))["data"]
        assert (one[count._id], shown, updated["label"]) == (times, times, "seen")
    assert other[count._id] == 0
    assert not any(one.config_values.values())
    assert page.get_config_file() == described


def test_what_a_visitor_still_uses_is_not_forgotten():
    """To Gradio a visitor whose connection was lost once has left for good."""
    with gr.Blocks() as page:
        photograph = gr.State()
    keep_while_used()
    holder = StateHolder()
    holder.set_blocks(page)
    hours = timedelta(hours=2)
    for name in ("used", "left"):
        state = holder[name]
        state[photograph._id], state.is_closed = "cat", True
        state._state_ttl = {key: (lifetime, at - hours) for key, (lifetime, at) in state._state_ttl.items()}
    assert holder["used"][photograph._id] == "cat"
    holder.delete_all_expired_state()
    assert [photograph._id in holder.session_data[name] for name in ("used", "left")] == [True, False]


# The end


@pytest.mark.slow
def test_what_was_uploaded_is_gone_when_the_server_is_and_that_waits_for_no_page(shipped_or_fresh, tmp_path):
    (tmp_path / "wsss-page-999999999-killed").mkdir()
    kernels = str(tmp_path / "kernels")  # none yet: the end comes while they are compiled
    with running(shipped_or_fresh, TMPDIR=str(tmp_path), NUMBA_CACHE_DIR=kernels) as address:
        visitor = Visitor(address)
        stored = Path(visitor.upload("x.png", png())["path"])
        assert stored.is_relative_to(tmp_path) and stored.exists()
        of_a_page = visitor.http.build_request("GET", f"{address}/gradio_api/heartbeat/{visitor.session}")
        assert visitor.http.send(of_a_page, stream=True).status_code == 200  # its answer has no end
        asked = time.monotonic()
    seconds = time.monotonic() - asked
    visitor.close()
    assert not list(tmp_path.glob("wsss-page-*"))
    assert seconds < 30  # a page's stream would hold it for ever


LOGIN = {"username": "me", "password": "password1"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[str]:
    """A page with a password, whose checkpoint and classes have names that are HTML."""
    folder = tmp_path_factory.mktemp("names") / PAYLOADS[1].replace("/", "_")
    config = replace(tiny(), encoder="test_efficientnet", encoder_weights="none")
    torch.manual_seed(0)
    checkpoint.save(folder, build(config, 4, pretrained=False).state_dict(), config, tuple(PAYLOADS[:3]))
    with running(folder, "--auth", ":".join(LOGIN.values())) as address:
        yield address


@pytest.mark.slow
def test_a_page_with_a_password_tells_nothing_without_it(guarded):
    with httpx.Client(base_url=guarded, timeout=60) as stranger:

        def asked() -> list[httpx.Response]:
            question = {"data": [], "fn_index": 0, "session_hash": "x"}
            read = ("config", "gradio_api/info", "gradio_api/openapi.json", "gradio_api/queue/status")
            return [
                *(stranger.get(f"/{target}") for target in read),
                stranger.get(f"/gradio_api/file={EXAMPLE}"),
                stranger.post("/gradio_api/upload", files={"files": ("x.png", png())}),
                stranger.post("/gradio_api/queue/join", json=question),
                stranger.post("/gradio_api/call/segment", json={"data": []}),
            ]

        assert [answer.status_code for answer in asked()] == [401] * 8
        # Gradio's history of runs asks for no password, and lists what this machine's token may see at the hub.
        assert stranger.get("/gradio_api/run-history/buckets").status_code == 404
        page = stranger.get("/")
        assert page.status_code == 200 and "Classes in the photograph" not in page.text  # it asks for the password
        assert stranger.post("/login", data=LOGIN | {"password": "password2"}).status_code == 400
        assert [answer.status_code for answer in asked()] == [401] * 8
        assert stranger.post("/login", data=LOGIN).status_code == 200
        assert [answer.status_code for answer in asked()] == [200] * 4 + [403] + [200] * 3
        assert "Classes in the photograph" in stranger.get("/").text


@pytest.mark.slow
@pytest.mark.browser
def test_names_that_are_html_run_nothing_in_a_browser(guarded):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    dialogs, leaving = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith((guarded, "data:", "blob:")) else leaving.append(r.url))
        page.context.request.post(f"{guarded}/login", form=LOGIN)
        page.goto(guarded)
        page.get_by_text("alert(1)").first.wait_for(timeout=90_000)
        for tab in page.get_by_role("tab").all():
            tab.click()
            page.wait_for_timeout(200)
        browser.close()
    assert not dialogs and not leaving
