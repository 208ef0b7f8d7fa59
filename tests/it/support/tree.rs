//! Judging a tree by what is on disk: no server says how it should be read.

use std::fs;
use std::path::{Path, PathBuf};

use super::content::{Digester, digest};

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found
}

/// Everything that Distribution would trip over: blobs whose name is not their digest, links to nothing, tags without a
/// revision, manifests whose parts are missing. Uploads are not looked at.
pub(crate) fn damage(root: &Path) -> Vec<String> {
    let tree = root.join("docker/registry/v2");
    let blob = |digest: &str| tree.join("blobs/sha256").join(&digest[7..9]).join(&digest[7..]).join("data");
    let mut damage = Vec::new();
    for file in files(&tree.join("blobs")) {
        let named = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        if file.file_name().is_some_and(|name| name == "data") && digest_of(&file) != format!("sha256:{named}") {
            damage.push(format!("{} is not what its name says", file.display()));
        }
    }
    for link in files(&tree.join("repositories")).into_iter().filter(|file| file.ends_with("link")) {
        let text = fs::read_to_string(&link).unwrap_or_default();
        let well_formed = text.len() == 71 && text.starts_with("sha256:");
        if !well_formed || !blob(&text).exists() {
            damage.push(format!("{} points to nothing: {text:?}", link.display()));
            continue;
        }
        let repository = repository_of(&link);
        if link.to_string_lossy().contains("/_manifests/tags/") {
            let revision = repository.join("_manifests/revisions/sha256").join(&text[7..]).join("link");
            if link.to_string_lossy().contains("/current/") && !revision.exists() {
                damage.push(format!("{} names a manifest that the repository lacks", link.display()));
            }
        }
        if link.to_string_lossy().contains("/_manifests/revisions/") {
            let manifest = fs::read(blob(&text)).unwrap_or_default();
            damage.extend(missing_parts(&manifest, &repository).iter().map(|part| format!("{text} lacks {part}")));
        }
    }
    damage
}

/// The folder that holds `_layers`, `_manifests` and `_uploads`.
fn repository_of(link: &Path) -> PathBuf {
    let special = |path: &&Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('_'));
    let inside = link.ancestors().find(special).expect("links are inside of a repository");
    inside.parent().expect("and a repository is a folder").to_owned()
}

/// The configuration and the layers of a manifest that its repository does not hold.
fn missing_parts(manifest: &[u8], repository: &Path) -> Vec<String> {
    let Ok(manifest) = serde_json::from_slice::<serde_json::Value>(manifest) else {
        return vec!["its JSON".to_owned()];
    };
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let parts = layers.chain([&manifest["config"]]).filter_map(|part| part["digest"].as_str());
    let missing = parts.filter(|part| !repository.join("_layers/sha256").join(&part[7..]).join("link").exists());
    missing.map(str::to_owned).collect()
}

fn digest_of(file: &Path) -> String {
    let mut digester = Digester::new(std::io::sink());
    let copied = fs::File::open(file).and_then(|mut file| std::io::copy(&mut file, &mut digester));
    copied.map_or_else(|_| digest(b""), |_| digester.digest())
}
