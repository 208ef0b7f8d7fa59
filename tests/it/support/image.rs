//! Images out of nothing, in the forms that clients take: an OCI image layout, a docker archive, blobs in memory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::content::{Content, Digester, digest};

/// Media types of the OCI image specification.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

const MEBIBYTE: u64 = 1 << 20;

/// An image: layers of one file each, for one architecture. Equal images are equal bytes.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    architecture: &'static str,
    layers: Vec<Content>,
}

impl Image {
    /// An image of layers with these sizes; different seeds share no layer.
    pub(crate) fn new(seed: u64, sizes: &[u64]) -> Self {
        let layers = (0..).zip(sizes).map(|(number, &size)| Content::new(seed << 8 | number, size)).collect();
        Self { architecture: "amd64", layers }
    }

    /// Three layers, one of them over 1 GiB.
    pub(crate) fn large() -> Self {
        Self::new(0x1a, &[40_000, 3 * MEBIBYTE, 1024 * MEBIBYTE + 65_537])
    }

    /// Three layers of a few hundred kilobytes.
    pub(crate) fn small(seed: u64) -> Self {
        Self::new(seed, &[40_000, 300_000, 1_200])
    }

    /// The same with one more layer, for another architecture.
    pub(crate) fn variant(&self, architecture: &'static str, layer: Content) -> Self {
        let layers = self.layers.iter().copied().chain([layer]).collect();
        Self { architecture, layers }
    }

    /// The configuration document; its digest is what docker and podman call the image id.
    fn config(&self) -> Vec<u8> {
        let ids: Vec<String> = self.layers.iter().map(|layer| archive_digest(*layer)).collect();
        let history: Vec<Value> = self.layers.iter().map(|layer| json!({ "created_by": file_name(*layer) })).collect();
        let config = json!({
            "created": "2026-01-01T00:00:00Z",
            "architecture": self.architecture,
            "os": "linux",
            "config": { "Cmd": ["/true"] },
            "rootfs": { "type": "layers", "diff_ids": ids },
            "history": history,
        });
        config.to_string().into_bytes()
    }

    /// The image id: it pins every byte of every layer, whatever compression the layers travelled in.
    pub(crate) fn id(&self) -> String {
        digest(&self.config())
    }

    /// Writes the archive that `docker load` reads.
    pub(crate) fn write_docker_archive(&self, name: &str, out: &mut dyn Write) -> io::Result<()> {
        let config = self.config();
        let config_name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let layer_name = |number: usize| format!("{number}/layer.tar");
        let layers: Vec<String> = (0..self.layers.len()).map(layer_name).collect();
        let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": layers }]).to_string();
        write_file(out, &config_name, config.len() as u64, &mut config.as_slice())?;
        for (layer, name) in self.layers.iter().zip(&layers) {
            write_header(out, name, archive_size(*layer))?;
            write_archive(out, *layer)?;
        }
        write_file(out, "manifest.json", manifest.len() as u64, &mut manifest.as_bytes())?;
        write_end(out)
    }
}

/// Images in an OCI image layout on disk.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    directory: PathBuf,
    /// Its manifest, or its index when it has several images.
    pub(crate) digest: String,
}

impl Layout {
    /// Writes a layout of one image. It has the tag `latest`.
    pub(crate) fn of_image(directory: &Path, image: &Image) -> Self {
        let descriptor = write_image(&blobs_of(directory), image).expect("the layout can be written");
        Self::finish(directory, &descriptor)
    }

    /// Writes a layout of one index of several images. It has the tag `latest`.
    pub(crate) fn of_index(directory: &Path, images: &[Image]) -> Self {
        let blobs = blobs_of(directory);
        let write = |image: &Image| {
            let mut descriptor = write_image(&blobs, image).expect("the layout can be written");
            descriptor["platform"] = json!({ "architecture": image.architecture, "os": "linux" });
            descriptor
        };
        let manifests: Vec<Value> = images.iter().map(write).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        let descriptor =
            write_blob(&blobs, OCI_INDEX, index.to_string().as_bytes()).expect("the layout can be written");
        Self::finish(directory, &descriptor)
    }

    /// The layout of [`Image::large`], made once and kept between runs: it is the same every time.
    pub(crate) fn large() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large-image");
        let image = Image::large();
        let complete = directory.join(image.id().replace(':', "-"));
        if let Ok(digest) = fs::read_to_string(&complete) {
            return Self { directory, digest };
        }
        let _ = fs::remove_dir_all(&directory);
        let layout = Self::of_image(&directory, &image);
        fs::write(&complete, &layout.digest).expect("the layout can be written");
        layout
    }

    /// What skopeo, podman and buildah call it.
    pub(crate) fn transport(&self) -> String {
        format!("oci:{}:latest", self.directory.display())
    }

    fn finish(directory: &Path, descriptor: &Value) -> Self {
        let digest = descriptor["digest"].as_str().expect("descriptors have digests").to_owned();
        let mut entry = descriptor.clone();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(directory.join("index.json"), index.to_string()).expect("the layout can be written");
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        fs::write(directory.join("oci-layout"), version.to_string()).expect("the layout can be written");
        Self { directory: directory.to_owned(), digest }
    }
}

/// The manifest digest and the image id of the only image in a layout that a client wrote.
pub(crate) fn read_layout(directory: &Path) -> (String, String) {
    let parse = |path: &Path| -> Value {
        let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).expect("layouts are JSON")
    };
    let text = |value: &Value| value.as_str().expect("descriptors have digests").to_owned();
    let manifest = text(&parse(&directory.join("index.json"))["manifests"][0]["digest"]);
    let path = directory.join("blobs").join(manifest.replace(':', "/"));
    (manifest, text(&parse(&path)["config"]["digest"]))
}

fn blobs_of(directory: &Path) -> PathBuf {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the layout can be written");
    blobs
}

/// Writes layers, configuration and manifest, and returns the descriptor of the manifest.
fn write_image(blobs: &Path, image: &Image) -> io::Result<Value> {
    let layers: Vec<Value> = image.layers.iter().map(|layer| write_layer(blobs, *layer)).collect::<io::Result<_>>()?;
    let config = write_blob(blobs, OCI_CONFIG, &image.config())?;
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
    write_blob(blobs, OCI_MANIFEST, manifest.to_string().as_bytes())
}

fn write_blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> io::Result<Value> {
    let digest = digest(bytes);
    fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

/// Writes a layer as gzip with stored blocks: the form that clients send as it is, at the speed of a copy.
fn write_layer(blobs: &Path, layer: Content) -> io::Result<Value> {
    let unnamed = blobs.join(format!("layer-{:x}", layer.seed));
    let file = Digester::new(BufWriter::new(File::create(&unnamed)?));
    let mut compressed = GzEncoder::new(file, Compression::none());
    write_archive(&mut compressed, layer)?;
    let file = compressed.finish()?;
    let (digest, size) = (file.digest(), file.written());
    file.into_inner().flush()?;
    fs::rename(unnamed, blobs.join(digest.trim_start_matches("sha256:")))?;
    Ok(json!({ "mediaType": OCI_LAYER, "digest": digest, "size": size }))
}

// The tar format (POSIX ustar), as far as a file with a short name needs it.

const BLOCK: u64 = 512;

fn file_name(layer: Content) -> String {
    format!("content-{:x}.bin", layer.seed)
}

/// How many bytes [`write_archive`] writes.
fn archive_size(layer: Content) -> u64 {
    BLOCK + layer.size.next_multiple_of(BLOCK) + 2 * BLOCK
}

fn archive_digest(layer: Content) -> String {
    let mut digester = Digester::new(io::sink());
    write_archive(&mut digester, layer).expect("memory does not fail");
    digester.digest()
}

/// Writes the archive that a layer is.
fn write_archive(out: &mut dyn Write, layer: Content) -> io::Result<()> {
    write_file(out, &file_name(layer), layer.size, &mut layer.reader())?;
    write_end(out)
}

fn write_file(out: &mut dyn Write, name: &str, size: u64, content: &mut dyn io::Read) -> io::Result<()> {
    write_header(out, name, size)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        out.write_all(&buffer[..count])?;
    }
    let padding = size.next_multiple_of(BLOCK) - size;
    out.write_all(&vec![0; padding as usize])
}

fn write_header(out: &mut dyn Write, name: &str, size: u64) -> io::Result<()> {
    let mut header = [0; BLOCK as usize];
    let mut put = |offset: usize, text: &str| header[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.write_all(&header)
}

fn write_end(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK as usize])
}
