-- Version 1. Times are Unix milliseconds; hashes of 32 bytes are BLOBs, git ids are hexadecimal TEXT.
CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL);

CREATE TABLE accounts (address TEXT PRIMARY KEY, created INTEGER NOT NULL);
-- Claimed names. A user's name belongs to one address; an organisation has members.
CREATE TABLE names (name TEXT PRIMARY KEY, kind TEXT NOT NULL, owner TEXT NOT NULL, created INTEGER NOT NULL);
CREATE INDEX names_of ON names (owner);
CREATE TABLE members (org TEXT NOT NULL, address TEXT NOT NULL, role TEXT NOT NULL, PRIMARY KEY (org, address));
CREATE INDEX members_of ON members (address);
CREATE TABLE nonces (nonce TEXT PRIMARY KEY, expires INTEGER NOT NULL);
CREATE TABLE tokens (
  id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, address TEXT NOT NULL, scope TEXT NOT NULL, label TEXT NOT NULL,
  created INTEGER NOT NULL, expires INTEGER NOT NULL
);
CREATE INDEX tokens_of ON tokens (address);

CREATE TABLE repos (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL, folded TEXT NOT NULL,
  created INTEGER NOT NULL, updated INTEGER NOT NULL, private INTEGER NOT NULL, gated TEXT NOT NULL,
  head TEXT NOT NULL, likes INTEGER NOT NULL DEFAULT 0, pipeline TEXT, library TEXT, license TEXT,
  card TEXT NOT NULL DEFAULT '{}', formats TEXT NOT NULL DEFAULT '', UNIQUE (kind, folded)
);
-- Each holds what a search looks at, so that one without a match reads the index only.
CREATE INDEX repos_updated ON repos (kind, updated, id, folded, private, owner);
CREATE INDEX repos_created ON repos (kind, created, id, folded, private, owner);
CREATE INDEX repos_likes ON repos (kind, likes, updated, id, folded, private, owner);
CREATE INDEX repos_owner ON repos (kind, owner);
-- Former names of moved repositories.
CREATE TABLE moved (kind TEXT NOT NULL, folded TEXT NOT NULL, repo INTEGER NOT NULL, PRIMARY KEY (kind, folded));
CREATE TABLE tags (repo INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (repo, tag));
CREATE INDEX tags_repos ON tags (tag, repo);

CREATE TABLE refs (
  repo INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, oid TEXT NOT NULL, message TEXT,
  PRIMARY KEY (repo, kind, name)
);
CREATE TABLE commits (
  repo INTEGER NOT NULL, oid TEXT NOT NULL, parent TEXT, tree BLOB NOT NULL, author TEXT NOT NULL, title TEXT NOT NULL,
  body TEXT NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (repo, oid)
);
CREATE TABLE trees (id BLOB PRIMARY KEY, body BLOB NOT NULL);

CREATE TABLE blobs (
  sha256 BLOB PRIMARY KEY, blake3 BLOB NOT NULL, git BLOB NOT NULL, size INTEGER NOT NULL, created INTEGER NOT NULL
);
-- Content of small blobs; the others are files.
CREATE TABLE inline_blobs (sha256 BLOB PRIMARY KEY, body BLOB NOT NULL);
-- Which repository may use a blob: uploaded through it, and committed or not yet.
CREATE TABLE blob_refs (
  repo INTEGER NOT NULL, sha256 BLOB NOT NULL, committed INTEGER NOT NULL, created INTEGER NOT NULL,
  PRIMARY KEY (repo, sha256)
);
CREATE INDEX blob_refs_of ON blob_refs (sha256);
-- What the validator of a format found.
CREATE TABLE checks (sha256 BLOB NOT NULL, format TEXT NOT NULL, result TEXT NOT NULL, PRIMARY KEY (sha256, format));

CREATE TABLE likes (repo INTEGER NOT NULL, address TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (repo, address));
CREATE INDEX likes_of ON likes (address);
CREATE TABLE access (
  repo INTEGER NOT NULL, address TEXT NOT NULL, status TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (repo, address)
);

-- Where the chunks of uploaded xorbs are now: in blobs. A client may refer to any xorb it once uploaded.
CREATE TABLE xorb_chunks (
  xorb BLOB NOT NULL, position INTEGER NOT NULL, size INTEGER NOT NULL, blob BLOB NOT NULL, start INTEGER NOT NULL,
  PRIMARY KEY (xorb, position)
);
CREATE INDEX xorb_chunks_of ON xorb_chunks (blob);
