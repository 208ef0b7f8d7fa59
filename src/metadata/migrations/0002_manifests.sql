-- What was read of the registry's manifests once: facts, because a digest names its content. A row does not say that the
-- manifest is still in its repository; the tree does. Everything here can be forgotten and read again.

CREATE TABLE manifests (
    repository   TEXT   NOT NULL,
    digest       TEXT   NOT NULL,
    subject      TEXT,            -- the digest of the manifest that this one says something about
    size         BIGINT NOT NULL, -- bytes: its own and those of the configuration and the layers that it names
    published_at BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
);

CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;

-- How often rows were taken out of `manifests`. Whoever remembers that all rows of a repository are there remembers this
-- number too, and looks again when it is another.
CREATE TABLE manifests_forgotten (
    times BIGINT NOT NULL
);

INSERT INTO manifests_forgotten (times) VALUES (0);
