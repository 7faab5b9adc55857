"""Drives the unmodified huggingface_hub against a hub: every call is checked, downloads are compared byte by byte.

Environment: HF_ENDPOINT, HF_TOKEN (write token of ALICE), BOB_TOKEN, READ_TOKEN (read token of ALICE), ALICE, BOB
(addresses), FIXTURES. Exits non-zero at the first call that does not do what it says.
"""

import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    ModelCard,
    ModelCardData,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
    metadata_update,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

ENDPOINT = os.environ["HF_ENDPOINT"]
ALICE, BOB = os.environ["ALICE"], os.environ["BOB"]
FIXTURES = Path(os.environ["FIXTURES"])
checks = []
driven = set()


def call(name):
    """Notes what is about to be checked."""
    checks.append(name)


def count(frame, event, _):
    """Notes each public function and method of huggingface_hub that this file calls itself."""
    if event != "call" or not frame.f_back or frame.f_back.f_code.co_filename != __file__:
        return
    module, code = frame.f_globals.get("__name__", ""), frame.f_code
    name = getattr(code, "co_qualname", code.co_name)
    # A wrapper of the utilities that checks repository names stands before most of them.
    if code.co_name == "_inner_fn":
        function = frame.f_locals.get("fn")
        module, name = getattr(function, "__module__", module), getattr(function, "__qualname__", name)
    if module.split(".")[0] != "huggingface_hub" or module.startswith(("huggingface_hub.utils", "huggingface_hub._local_folder")):
        return
    if "<" not in name and not name.rsplit(".", 1)[-1].startswith("_"):
        driven.add(name)


def refused(kind, function, *args, status=None, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        if status is not None:
            assert error.response.status_code == status, (error.response.status_code, error)
        return error
    raise AssertionError(f"{function} did not raise {kind.__name__}")


def safetensors(tensors):
    """A safetensors file of float32 tensors, written from the format's description."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (shape, values) in tensors.items():
        body = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def main():
    work = Path(tempfile.mkdtemp())
    noise = random.Random(7)
    api, bob, nobody = HfApi(), HfApi(token=os.environ["BOB_TOKEN"]), HfApi(token=False)
    reader = HfApi(token=os.environ["READ_TOKEN"])

    # --- identity
    call("whoami")
    me = api.whoami()
    assert me["name"] == ALICE and me["auth"]["accessToken"]["role"] == "write", me
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    refused(HfHubHTTPError, HfApi(token="opg_wrong").whoami, status=401)

    # --- repositories
    call("create_repo")
    url = api.create_repo("first")
    repo = url.repo_id
    assert repo == f"{ALICE}/first" and str(url) == f"{ENDPOINT}/{repo}", url
    call("create_repo exist_ok")
    assert api.create_repo("first", exist_ok=True).repo_id == repo
    refused(HfHubHTTPError, api.create_repo, "first", status=409)
    call("create_repo in a foreign name space is refused")
    refused(HfHubHTTPError, api.create_repo, f"{BOB}/stolen", status=403)
    call("create_repo with a read token is refused")
    refused(HfHubHTTPError, reader.create_repo, "second", status=403)
    call("repo_exists")
    assert api.repo_exists(repo) and not api.repo_exists(f"{ALICE}/none")
    call("model_info of an empty repository")
    assert api.model_info(repo).siblings == []

    # --- uploads
    call("upload_file bytes")
    card = b"---\nlicense: apache-2.0\ntags:\n- demo\n- tiny\npipeline_tag: text-generation\nlibrary_name: gguf\n---\n# First\n"
    commit1 = api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo, commit_message="card")
    assert len(commit1.oid) == 40
    call("upload_file path")
    config = work / "config.json"
    config.write_text(json.dumps({"model_type": "llama", "ü": "é"}))
    api.upload_file(path_or_fileobj=str(config), path_in_repo="config.json", repo_id=repo)
    call("upload_file file object")
    binary = noise.randbytes(300_000)
    api.upload_file(path_or_fileobj=io.BytesIO(binary), path_in_repo="data/noise.bin", repo_id=repo)
    call("upload_file empty")
    api.upload_file(path_or_fileobj=b"", path_in_repo="empty.bin", repo_id=repo)
    call("upload_file in parts")
    big = noise.randbytes(12_000_000)  # three parts of 5 MiB
    big_path = work / "big.bin"
    big_path.write_bytes(big)
    api.upload_file(path_or_fileobj=str(big_path), path_in_repo="big.bin", repo_id=repo)
    call("upload_file unicode path")
    api.upload_file(path_or_fileobj="grüße".encode(), path_in_repo="ordner/größe 1.txt", repo_id=repo)
    call("upload_file unchanged makes no commit")
    before = api.model_info(repo).sha
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
    api.upload_file(path_or_fileobj=str(big_path), path_in_repo="big.bin", repo_id=repo)
    assert api.model_info(repo).sha == before

    call("upload_folder")
    folder = work / "folder"
    (folder / "sub").mkdir(parents=True)
    tensors = safetensors({"a": ([2, 3], [1, 2, 3, 4, 5, 6]), "b": ([4], [0, 0, 0, 0])})
    contents = {
        "model.safetensors": tensors,
        "sub/text.txt": b"hello\r\nworld",
        "sub/deep.json": b"{}",
        "pytorch_model.bin": noise.randbytes(2_000_000),
        "skip.log": b"no",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    api.upload_folder(repo_id=repo, folder_path=folder, path_in_repo="v1", ignore_patterns=["*.log"])
    files = api.list_repo_files(repo)
    assert "v1/sub/text.txt" in files and "v1/skip.log" not in files, files
    call("upload_folder delete_patterns")
    (folder / "sub/deep.json").unlink()
    api.upload_folder(repo_id=repo, folder_path=folder, path_in_repo="v1", ignore_patterns=["*.log"], delete_patterns=["*.json"])
    assert "v1/sub/deep.json" not in api.list_repo_files(repo)
    call("upload of a thousand files in one commit")
    many = work / "many"
    many.mkdir()
    for n in range(1000):
        (many / f"{n:04}.txt").write_text(f"file {n}")
    api.create_repo("many")
    api.upload_folder(repo_id=f"{ALICE}/many", folder_path=many)
    assert len(api.list_repo_files(f"{ALICE}/many")) == 1000
    call("hf_hub_download straight to a directory")
    api.create_repo("direct")
    api.upload_folder(repo_id=f"{ALICE}/direct", folder_path=folder)
    assert Path(hf_hub_download(f"{ALICE}/direct", "model.safetensors", local_dir=work / "lf")).read_bytes() == tensors

    # --- commits
    call("create_commit with add, copy and delete")
    info = api.create_commit(
        repo,
        [
            CommitOperationAdd("added.txt", b"added"),
            CommitOperationCopy("big.bin", "copies/big.bin"),
            CommitOperationCopy("config.json", "copies/config.json"),
            CommitOperationDelete("ordner/größe 1.txt"),
            CommitOperationDelete("v1/sub/"),
        ],
        commit_message="several",
        commit_description="a longer\ntext",
    )
    files = api.list_repo_files(repo)
    assert "copies/big.bin" in files and "v1/sub/text.txt" not in files and "ordner/größe 1.txt" not in files, files
    call("create_commit on a stale parent is refused")
    stale = [CommitOperationAdd("stale.txt", b"x")]
    refused(HfHubHTTPError, api.create_commit, repo, stale, commit_message="stale", parent_commit=commit1.oid, status=412)
    call("create_commit on the right parent")
    api.create_commit(repo, stale, commit_message="fresh", parent_commit=info.oid)
    call("create_commit into a foreign repository is refused")
    refused(HfHubHTTPError, bob.upload_file, path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo, status=403)
    call("hostile paths are refused")
    for path in ["a/\u202etxt.exe", "zero\u200bwidth", "a\\..\\b", "e\u0301"]:
        refused(HfHubHTTPError, api.upload_file, path_or_fileobj=b"x", path_in_repo=path, repo_id=repo)
    call("create_pr is refused")
    refused(HfHubHTTPError, api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, create_pr=True)
    call("preupload_lfs_files")
    operation = CommitOperationAdd("pre/uploaded.bin", noise.randbytes(100_000))
    kept = operation.path_or_fileobj
    api.preupload_lfs_files(repo, [operation])
    api.create_commit(repo, [operation], commit_message="preuploaded")
    call("delete_file")
    api.delete_file("stale.txt", repo)
    call("delete_folder")
    api.delete_folder("copies", repo)
    call("delete_files")
    api.delete_files(repo, ["added.txt"])
    call("delete of a missing file is refused")
    refused(EntryNotFoundError, api.delete_file, "nowhere.txt", repo)

    # --- information
    call("model_info")
    model = api.model_info(repo)
    assert model.author == ALICE and model.private is False and model.gated is False and model.pipeline_tag == "text-generation"
    assert {"demo", "tiny", "license:apache-2.0"} <= set(model.tags), model.tags
    assert model.card_data.license == "apache-2.0" and model.library_name == "gguf"
    call("model_info files_metadata")
    by_name = {s.rfilename: s for s in api.model_info(repo, files_metadata=True).siblings}
    assert by_name["README.md"].blob_id == git_sha1(card) and by_name["README.md"].lfs is None
    assert by_name["big.bin"].lfs.sha256 == hashlib.sha256(big).hexdigest() and by_name["big.bin"].size == len(big)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{by_name['big.bin'].lfs.sha256}\nsize {len(big)}\n"
    assert by_name["big.bin"].blob_id == git_sha1(pointer.encode()) and by_name["big.bin"].lfs.pointer_size == len(pointer)
    call("model_info at a revision")
    assert api.model_info(repo, revision=commit1.oid).sha == commit1.oid
    call("model_info expand")
    assert api.model_info(repo, expand=["sha", "safetensors"]).safetensors.total == 10
    call("repo_info")
    assert api.repo_info(repo).id == repo
    call("list_repo_files at a revision")
    assert api.list_repo_files(repo, revision=commit1.oid) == ["README.md"]
    call("list_repo_tree")
    top = {entry.path: entry for entry in api.list_repo_tree(repo)}
    assert type(top["v1"]).__name__ == "RepoFolder" and top["config.json"].size == config.stat().st_size, top
    call("list_repo_tree recursive and expanded")
    deep = {entry.path: entry for entry in api.list_repo_tree(repo, recursive=True, expand=True)}
    assert deep["v1/model.safetensors"].lfs.sha256 == hashlib.sha256(tensors).hexdigest()
    assert deep["v1/model.safetensors"].last_commit is not None
    call("list_repo_tree in a folder")
    assert {e.path for e in api.list_repo_tree(repo, "v1")} == {"v1/model.safetensors", "v1/pytorch_model.bin"}
    call("list_repo_tree of a thousand entries by pages")
    assert len(list(api.list_repo_tree(f"{ALICE}/many"))) == 1000
    call("get_paths_info")
    found = api.get_paths_info(repo, ["config.json", "v1", "nothing"])
    assert [p.path for p in found] == ["config.json", "v1"], found
    call("file_exists")
    assert api.file_exists(repo, "config.json") and not api.file_exists(repo, "nothing")
    call("revision_exists")
    assert api.revision_exists(repo, "main") and not api.revision_exists(repo, "other")
    call("list_repo_commits")
    commits = api.list_repo_commits(repo)
    assert commits[-1].title == "initial commit" and commits[-2].title == "card" and commits[0].authors == [ALICE]
    several = next(c for c in commits if c.title == "several")
    assert several.message == "a longer\ntext"
    call("list_lfs_files")
    assert hashlib.sha256(big).hexdigest() in {f.file_oid for f in api.list_lfs_files(repo)}
    call("list_models by author")
    assert {m.id for m in api.list_models(author=ALICE)} == {repo, f"{ALICE}/many", f"{ALICE}/direct"}
    call("list_models search")
    assert [m.id for m in api.list_models(search="FIRS")] == [repo]
    call("list_models filter, pipeline and sort")
    assert [m.id for m in api.list_models(filter=["demo", "license:apache-2.0"], sort="likes", limit=3)] == [repo]
    assert [m.id for m in api.list_models(pipeline_tag="text-generation", full=True)] == [repo]
    call("list_models by pages")
    assert len(list(api.list_models(limit=2))) == 2
    call("get_model_tags")
    assert "license" in api.get_model_tags()
    call("get_safetensors_metadata")
    api.upload_file(path_or_fileobj=tensors, path_in_repo="model.safetensors", repo_id=repo)
    meta = api.get_safetensors_metadata(repo)
    assert meta.parameter_count == {"F32": 10} and not meta.sharded, meta
    call("parse_safetensors_file_metadata")
    assert api.parse_safetensors_file_metadata(repo, "v1/model.safetensors").tensors["a"].shape == [2, 3]
    call("get_user_overview")
    assert api.get_user_overview(ALICE).num_models == 3

    # --- branches and tags
    call("create_branch")
    api.create_branch(repo, branch="feature/one")
    call("create_branch at a revision")
    api.create_branch(repo, branch="old", revision=commit1.oid)
    api.create_branch(repo, branch="old", exist_ok=True)
    refused(HfHubHTTPError, api.create_branch, repo, branch="old", status=409)
    call("upload_file to a branch")
    api.upload_file(path_or_fileobj=b"on a branch", path_in_repo="branch.txt", repo_id=repo, revision="feature/one")
    assert not api.file_exists(repo, "branch.txt") and api.file_exists(repo, "branch.txt", revision="feature/one")
    call("create_tag")
    api.create_tag(repo, tag="v1.0", revision=commit1.oid, tag_message="first")
    api.create_tag(repo, tag="v1.0", exist_ok=True)
    call("list_repo_refs")
    refs = api.list_repo_refs(repo)
    assert {b.name for b in refs.branches} == {"main", "feature/one", "old"} and refs.tags[0].target_commit == commit1.oid
    call("delete_branch")
    api.delete_branch(repo, branch="old")
    refused(HfHubHTTPError, api.delete_branch, repo, branch="main", status=403)
    call("super_squash_history")
    api.super_squash_history(repo, branch="feature/one", commit_message="one")
    assert [c.title for c in api.list_repo_commits(repo, revision="feature/one")] == ["one"]

    # --- downloads
    call("hf_hub_download")
    path = Path(hf_hub_download(repo, "big.bin"))
    assert path.read_bytes() == big
    assert path.parent.name == api.model_info(repo).sha
    call("hf_hub_download by tag, commit and branch")
    for revision in ["v1.0", commit1.oid, "feature/one"]:
        assert Path(hf_hub_download(repo, "README.md", revision=revision)).read_bytes() == card
    call("hf_hub_download to a directory")
    assert Path(hf_hub_download(repo, "data/noise.bin", local_dir=work / "d")).read_bytes() == binary
    call("hf_hub_download of an empty file")
    assert Path(hf_hub_download(repo, "empty.bin")).read_bytes() == b""
    call("hf_hub_download preuploaded")
    assert Path(hf_hub_download(repo, "pre/uploaded.bin")).read_bytes() == kept
    call("hf_hub_download resumes")
    partial = work / "resume"
    (partial / ".cache/huggingface/download").mkdir(parents=True)
    etag = hashlib.sha256(big).hexdigest()
    from huggingface_hub._local_folder import get_local_download_paths

    incomplete = get_local_download_paths(partial, "big.bin").incomplete_path(etag)
    incomplete.parent.mkdir(parents=True, exist_ok=True)
    incomplete.write_bytes(big[:7_000_000])
    assert Path(hf_hub_download(repo, "big.bin", local_dir=partial)).read_bytes() == big
    call("hf_hub_download missing file and missing repository")
    refused(EntryNotFoundError, hf_hub_download, repo, "nothing.txt")
    refused(RepositoryNotFoundError, hf_hub_download, f"{ALICE}/none", "x")
    refused(RevisionNotFoundError, hf_hub_download, repo, "README.md", revision="none")
    call("try_to_load_from_cache")
    assert try_to_load_from_cache(repo, "big.bin") is not None
    call("get_hf_file_metadata")
    meta = get_hf_file_metadata(hf_hub_url(repo, "big.bin"))
    assert meta.etag == etag and meta.size == len(big) and meta.commit_hash == api.model_info(repo).sha
    call("snapshot_download")
    snapshot = Path(snapshot_download(repo))
    here = {str(p.relative_to(snapshot)) for p in snapshot.rglob("*") if p.is_file()}
    assert here == set(api.list_repo_files(repo)), here
    assert (snapshot / "v1/pytorch_model.bin").read_bytes() == contents["pytorch_model.bin"]
    call("snapshot_download to a directory with patterns")
    local = Path(snapshot_download(repo, revision=commit1.oid, local_dir=work / "snap", allow_patterns=["*.md"]))
    assert (local / "README.md").read_bytes() == card
    call("verify_repo_checksums")
    assert not api.verify_repo_checksums(repo, local_dir=snapshot_download(repo, local_dir=work / "full")).mismatches
    call("ModelCard.load")
    assert ModelCard.load(repo).data.license == "apache-2.0"
    call("ModelCard.push_to_hub")
    text = ModelCard.from_template(ModelCardData(license="mit", tags=["pushed"]), model_id="x").content
    ModelCard(text).push_to_hub(repo)
    assert api.model_info(repo).card_data.license == "mit"
    call("ModelCard.validate")
    ModelCard("---\nlicense: mit\n---\n").validate()
    refused(ValueError, ModelCard("---\nlicense: mit\na: &x [1]\nb: *x\n---\n").validate)
    call("metadata_update")
    metadata_update(repo, {"tags": ["updated"]}, overwrite=True)
    assert "updated" in api.model_info(repo).tags
    call("HfFileSystem ls, glob, read, range")
    fs = HfFileSystem()
    assert f"{repo}/config.json" in fs.ls(repo, detail=False)
    assert fs.glob(f"{repo}/v1/*.safetensors") == [f"{repo}/v1/model.safetensors"]
    assert fs.read_bytes(f"{repo}/data/noise.bin") == binary
    with fs.open(f"{repo}/big.bin", "rb") as file:
        file.seek(5_000_000)
        assert file.read(1000) == big[5_000_000:5_001_000]
    call("HfFileSystem write, copy and remove")
    with fs.open(f"{repo}/written.txt", "w") as file:
        file.write("through the file system")
    assert fs.read_text(f"{repo}/written.txt") == "through the file system"
    fs.cp_file(f"{repo}/written.txt", f"{repo}/copied.txt")
    fs.invalidate_cache()
    assert fs.read_text(f"{repo}/copied.txt") == "through the file system"
    fs.rm(f"{repo}/written.txt")
    fs.rm(f"{repo}/copied.txt")
    assert not fs.exists(f"{repo}/written.txt") and not fs.exists(f"{repo}/copied.txt")

    # --- models of the network
    call("ONNX and GGUF files are checked and named")
    api.create_repo("network")
    onnx = (FIXTURES / "digits/digits_mlp.onnx").read_bytes()
    api.upload_file(path_or_fileobj=onnx, path_in_repo="digits.onnx", repo_id=f"{ALICE}/network")
    api.upload_file(path_or_fileobj=b"\x80\x04" + onnx, path_in_repo="evil.onnx", repo_id=f"{ALICE}/network")
    gguf = FIXTURES / "tiny-llama/trained-Q8_0.gguf"
    api.upload_file(path_or_fileobj=gguf, path_in_repo="tiny.gguf", repo_id=f"{ALICE}/network")
    info = api.model_info(f"{ALICE}/network")
    assert info.gguf["architecture"] == "llama" and info.gguf["context_length"] > 0, info.gguf
    named = {m["path"]: m for m in info.opg["models"]}
    assert named["digits.onnx"]["servable"] and named["digits.onnx"]["root"].startswith("0x")
    assert not named["evil.onnx"]["servable"] and "root" not in named["evil.onnx"] and named["evil.onnx"]["problem"]

    # --- private and gated
    call("create_repo private")
    secret = api.create_repo("secret", visibility="private").repo_id
    api.upload_file(path_or_fileobj=b"secret", path_in_repo="s.txt", repo_id=secret)
    for other in (bob, nobody):
        refused(RepositoryNotFoundError, other.model_info, secret)
        refused(RepositoryNotFoundError, other.hf_hub_download, secret, "s.txt")
        assert secret not in {m.id for m in other.list_models(author=ALICE)}
    assert Path(reader.hf_hub_download(secret, "s.txt")).read_bytes() == b"secret"
    assert api.model_info(secret).private
    call("a hash alone gives no access to private content")
    hidden = noise.randbytes(200_000)
    api.upload_file(path_or_fileobj=hidden, path_in_repo="hidden.bin", repo_id=secret)
    bobs = bob.create_repo("bobs").repo_id
    line = {"key": "lfsFile", "value": {"path": "stolen.bin", "algo": "sha256", "oid": hashlib.sha256(hidden).hexdigest(), "size": len(hidden)}}
    from huggingface_hub.utils import get_session, hf_raise_for_status

    body = json.dumps({"key": "header", "value": {"summary": "steal"}}) + "\n" + json.dumps(line)
    response = get_session().post(f"{ENDPOINT}/api/models/{bobs}/commit/main", content=body, headers=bob._build_hf_headers())
    assert response.status_code == 400 and response.headers["x-error-code"] == "BlobMissing", response.text
    call("update_repo_settings")
    api.update_repo_settings(secret, visibility="public")
    assert nobody.model_info(secret).private is False
    call("update_repo_settings gated")
    api.update_repo_settings(secret, gated="manual")
    assert bob.model_info(secret).gated == "manual"
    shutil.rmtree(Path(os.environ["HF_HOME"]) / "hub", ignore_errors=True)
    refused(GatedRepoError, bob.hf_hub_download, secret, "s.txt")
    refused(GatedRepoError, nobody.hf_hub_download, secret, "s.txt")
    call("auth_check")
    api.auth_check(secret)
    api.auth_check(secret, write=True)
    refused(GatedRepoError, bob.auth_check, secret)
    call("list_pending_access_requests")
    response = get_session().post(f"{ENDPOINT}/{secret}/ask-access", headers=bob._build_hf_headers())
    hf_raise_for_status(response)
    assert [r.username for r in api.list_pending_access_requests(secret)] == [BOB]
    refused(HfHubHTTPError, lambda: list(bob.list_pending_access_requests(secret)), status=403)
    call("accept_access_request")
    api.accept_access_request(secret, BOB)
    assert Path(bob.hf_hub_download(secret, "s.txt")).read_bytes() == b"secret"
    assert [r.username for r in api.list_accepted_access_requests(secret)] == [BOB]
    call("reject_access_request")
    api.reject_access_request(secret, BOB, rejection_reason="no")
    assert [r.username for r in api.list_rejected_access_requests(secret)] == [BOB]
    refused(GatedRepoError, bob.auth_check, secret)
    call("cancel_access_request")
    api.cancel_access_request(secret, BOB)
    call("grant_access")
    api.grant_access(secret, BOB)
    bob.auth_check(secret)
    refused(HfHubHTTPError, api.grant_access, repo, BOB, status=400)

    # --- likes
    call("list_liked_repos, unlike and list_repo_likers")
    hf_raise_for_status(get_session().post(f"{ENDPOINT}/api/models/{repo}/like", headers=bob._build_hf_headers()))
    assert bob.list_liked_repos().models == [repo] and api.model_info(repo).likes == 1
    assert [u.username for u in api.list_repo_likers(repo)] == [BOB]
    bob.unlike(repo)
    assert api.model_info(repo).likes == 0

    # --- datasets
    call("dataset repositories")
    data = api.create_repo("rows", repo_type="dataset").repo_id
    api.upload_file(path_or_fileobj=b"a,b\n1,2\n", path_in_repo="rows.csv", repo_id=data, repo_type="dataset")
    assert Path(hf_hub_download(data, "rows.csv", repo_type="dataset")).read_bytes() == b"a,b\n1,2\n"
    assert [d.id for d in api.list_datasets(author=ALICE)] == [data] and api.dataset_info(data).id == data
    refused(HfHubHTTPError, api.create_repo, "app", repo_type="space", space_sdk="static")

    # --- moves
    call("move_repo")
    api.move_repo(f"{ALICE}/many", f"{ALICE}/moved")
    assert api.model_info(f"{ALICE}/moved").id == f"{ALICE}/moved"
    call("download under the former name")
    assert Path(hf_hub_download(f"{ALICE}/many", "0007.txt")).read_bytes() == b"file 7"
    refused(HfHubHTTPError, api.move_repo, f"{ALICE}/moved", f"{BOB}/moved", status=403)

    # --- deduplication
    if os.environ["HF_HUB_DISABLE_XET"] == "0":
        call("hf_xet moves only what changed")
        received = lambda: int(
            next(
                line.split()[1]
                for line in get_session().get(f"{ENDPOINT}/metrics").text.splitlines()
                if line.startswith("opg_hub_received_bytes_total")
            )
        )
        api.create_repo("dedup")
        one = noise.randbytes(20_000_000)
        two = one[:9_000_000] + noise.randbytes(1_500_000) + one[10_000_000:]  # 5 % replaced, and shifted
        for name, content in (("one.bin", one), ("two.bin", two)):
            (work / name).write_bytes(content)
            before = received()
            api.upload_file(path_or_fileobj=str(work / name), path_in_repo=name, repo_id=f"{ALICE}/dedup")
            moved = received() - before
            print(f"{name}: {len(content)} bytes, {moved} moved")
            assert Path(hf_hub_download(f"{ALICE}/dedup", name, force_download=True)).read_bytes() == content
        assert moved <= 0.15 * len(two), moved
        call("hf_xet to another repository of the same owner")
        api.create_repo("dedup2")
        before = received()
        api.upload_file(path_or_fileobj=str(work / "two.bin"), path_in_repo="three.bin", repo_id=f"{ALICE}/dedup2")
        assert received() - before < 1_000_000
        assert Path(hf_hub_download(f"{ALICE}/dedup2", "three.bin")).read_bytes() == two

    # --- the command line
    call("hf CLI")
    hf = Path(sys.executable).parent / "hf"
    run = lambda *args: subprocess.run([str(hf), *args], check=True, capture_output=True, text=True).stdout
    assert ALICE in run("auth", "whoami")
    (work / "cli").mkdir()
    (work / "cli/weights.bin").write_bytes(big[:3_000_000])
    run("repos", "create", f"{ALICE}/cli", "--exist-ok")
    run("upload", f"{ALICE}/cli", str(work / "cli"), ".")
    run("download", f"{ALICE}/cli", "weights.bin", "--local-dir", str(work / "cli-down"))
    assert (work / "cli-down/weights.bin").read_bytes() == big[:3_000_000]
    run("repos", "tag", "create", f"{ALICE}/cli", "v1")
    assert "v1" in run("repos", "tag", "list", f"{ALICE}/cli")

    # --- the end
    call("delete_tag")
    api.delete_tag(repo, tag="v1.0")
    assert api.list_repo_refs(repo).tags == []
    call("delete_repo")
    refused(HfHubHTTPError, bob.delete_repo, repo, status=403)
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    refused(RepositoryNotFoundError, api.delete_repo, repo)
    api.delete_repo(repo, missing_ok=True)

    shutil.rmtree(work)


if __name__ == "__main__":
    sys.setprofile(count)
    main()
    sys.setprofile(None)
    print(f"{len(set(checks))} checks; {len(driven)} different calls of huggingface_hub: {', '.join(sorted(driven))}")
    assert len(driven) >= 60, len(driven)
