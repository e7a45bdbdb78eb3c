//! Self-contained, content-addressed application images: executables, files and manifest under their SHA-256.
//!
//! ```text
//! IMAGE/oci-layout  IMAGE/index.json -> blobs/sha256/<manifest> -> <config>: the specification, paths are digests
//!                                                               -> <layers>: executables and files
//! ```
//! The layout is that of the OCI image specification 1.0, with our own media types: tools that copy images can copy these.
//! Digests are verified when an image is opened and again by every agent that starts a partition of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use control::Specification;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.partita.application.v1+json";
const LAYER_TYPE: &str = "application/octet-stream";
/// Bytes of a description; executables and files may be longer.
const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;

/// An image that cannot be made or used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A file.
    #[error("{}: it cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is something already.
    #[error("{}: there is something already; name a new directory", .0.display())]
    Exists(PathBuf),
    /// A description that is not one.
    #[error("{}: it is no image of an application: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Contents that are not what they were.
    #[error("{}: its contents have changed; make the image again with `coordinator pack`", .0.display())]
    Changed(PathBuf),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: String,
    manifests: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// An image that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packed {
    /// Its directory.
    pub image: PathBuf,
    /// Digest of its manifest: equal ones are equal images.
    pub digest: String,
    /// Executables and files in it.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> ImageError + '_ {
    |source| ImageError::Io { path: path.to_owned(), source }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 (hexadecimal) and length of a file.
fn digest_of(path: &Path) -> Result<(String, u64), ImageError> {
    let mut file = std::fs::File::open(path).map_err(io(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = std::io::Read::read(&mut file, &mut buffer).map_err(io(path))?;
        if count == 0 {
            return Ok((hexadecimal(&hasher.finalize()), size));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}

/// Makes an image of the application in the new directory `out`.
pub fn pack(specification: &Specification, out: &Path) -> Result<Packed, ImageError> {
    if out.exists() {
        return Err(ImageError::Exists(out.to_owned()));
    }
    let blobs = out.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(io(&blobs))?;
    let mut specification = specification.clone();
    let mut layers: BTreeMap<String, Descriptor> = BTreeMap::new();
    for component in &mut specification.components {
        let files = component.files.iter_mut().map(|file| &mut file.host);
        for path in files.chain([&mut component.executable]) {
            let (digest, size) = digest_of(path)?;
            let blob = blobs.join(&digest);
            if !layers.contains_key(&digest) {
                std::fs::copy(&*path, &blob).map_err(io(path))?;
                // What was copied is what was hashed, also if somebody wrote to it meanwhile.
                if digest_of(&blob)?.0 != digest {
                    return Err(ImageError::Changed(path.clone()));
                }
                let (name, key) = (blob_name(path), digest.clone());
                let annotations = [("org.opencontainers.image.title".to_owned(), name)].into();
                let (media_type, digest) = (LAYER_TYPE.to_owned(), format!("sha256:{digest}"));
                layers.insert(key, Descriptor { media_type, digest, size, annotations });
            }
            *path = PathBuf::from(&digest);
        }
    }
    let (files, bytes) = (layers.len(), layers.values().map(|it| it.size).sum());
    let config = write_blob(&blobs, CONFIG_TYPE, &control::encode(&specification))?;
    let layers = layers.into_values().collect();
    let manifest = Manifest { schema_version: 2, media_type: MANIFEST_TYPE.to_owned(), config, layers };
    let manifest = write_blob(&blobs, MANIFEST_TYPE, &control::encode(&manifest))?;
    let digest = manifest.digest.clone();
    let index = Index { schema_version: 2, media_type: INDEX_TYPE.to_owned(), manifests: vec![manifest] };
    for (name, contents) in [("index.json", control::encode(&index)), ("oci-layout", LAYOUT.into())] {
        let path = out.join(name);
        std::fs::write(&path, contents).map_err(io(&path))?;
    }
    Ok(Packed { image: out.to_owned(), digest, files, bytes })
}

fn blob_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write_blob(blobs: &Path, media_type: &str, contents: &[u8]) -> Result<Descriptor, ImageError> {
    let digest = hexadecimal(&Sha256::digest(contents));
    let path = blobs.join(&digest);
    std::fs::write(&path, contents).map_err(io(&path))?;
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: format!("sha256:{digest}"),
        size: contents.len() as u64,
        annotations: BTreeMap::new(),
    })
}

/// Opens the image in a directory and verifies all of it: the specification, with paths of the blobs and their digests.
pub fn open(image: &Path) -> Result<Specification, ImageError> {
    let format =
        |path: &Path, reason: &str| ImageError::Format { path: path.to_owned(), reason: reason.into() };
    let absolute = std::path::absolute(image).map_err(io(image))?;
    let index_path = absolute.join("index.json");
    let index: Index = description(&index_path)?;
    let [descriptor] = index.manifests.as_slice() else {
        return Err(format(&index_path, "it has not exactly one manifest"));
    };
    let path = verified(&absolute, descriptor)?;
    let manifest: Manifest = description(&path)?;
    if manifest.config.media_type != CONFIG_TYPE {
        return Err(format(&path, "its config is not a specification of Partita"));
    }
    let mut blobs = BTreeMap::new();
    for layer in &manifest.layers {
        let path = verified(&absolute, layer)?;
        blobs.insert(blob_name(&path), path);
    }
    let path = verified(&absolute, &manifest.config)?;
    let mut specification: Specification = description(&path)?;
    for component in &mut specification.components {
        let files = component.files.iter_mut().map(|file| &mut file.host);
        for name in files.chain([&mut component.executable]) {
            let digest = name.to_string_lossy().into_owned();
            let blob =
                blobs.get(&digest).ok_or_else(|| format(&path, "it names a file that is not in it"))?;
            *name = blob.clone();
            specification.digests.insert(blob.clone(), digest);
        }
    }
    specification.check().map_err(|error| format(&path, &error.to_string()))?;
    Ok(specification)
}

/// The path of a blob whose contents are what its digest says.
fn verified(image: &Path, descriptor: &Descriptor) -> Result<PathBuf, ImageError> {
    let name = descriptor.digest.strip_prefix("sha256:").unwrap_or_default();
    let is_digest =
        name.len() == 64 && name.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it));
    if !is_digest {
        let reason =
            format!("{} is no SHA-256 digest", descriptor.digest.chars().take(80).collect::<String>());
        return Err(ImageError::Format { path: image.to_owned(), reason });
    }
    let path = image.join("blobs/sha256").join(name);
    if digest_of(&path)?.0 == name { Ok(path) } else { Err(ImageError::Changed(path)) }
}

fn description<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ImageError> {
    let format = |reason: String| ImageError::Format { path: path.to_owned(), reason };
    if std::fs::metadata(path).map_err(io(path))?.len() > DESCRIPTION_BYTES_MAX {
        return Err(format(format!("it is longer than {DESCRIPTION_BYTES_MAX} bytes")));
    }
    let bytes = std::fs::read(path).map_err(io(path))?;
    serde_json::from_slice(&bytes).map_err(|error| format(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    fn packed(directory: &Path, out: &str) -> Result<(Packed, Specification)> {
        std::fs::write(directory.join("prog"), b"program")?;
        std::fs::write(directory.join("data"), b"data")?;
        let manifest = directory.join("app.toml");
        let text =
            "name = \"x\"\nranks = 2\nexecutable = \"prog\"\nfiles = [\"data:/data\", \"prog:/self\"]\n";
        std::fs::write(&manifest, text)?;
        let specification = super::super::read(&manifest)?;
        Ok((pack(&specification, &directory.join(out))?, specification))
    }

    #[test]
    fn an_image_has_everything_and_equal_contents_have_an_equal_name() -> Result {
        let directory = tempfile::tempdir()?;
        let (first, original) = packed(directory.path(), "one")?;
        let (second, _) = packed(directory.path(), "two")?;
        assert_eq!((first.files, first.bytes, &first.digest), (2, 11, &second.digest));
        assert!(
            matches!(packed(directory.path(), "one"), Err(error) if error.to_string().contains("already"))
        );
        ["prog", "data", "app.toml"]
            .iter()
            .try_for_each(|it| std::fs::remove_file(directory.path().join(it)))?;
        let opened = open(&directory.path().join("one"))?;
        let component = &opened.components[0];
        assert_eq!(std::fs::read(&component.executable)?, b"program");
        assert_eq!(std::fs::read(&component.files[0].host)?, b"data");
        assert_eq!((component.files[0].guest.as_str(), opened.digests.len()), ("/data", 2));
        assert_eq!(opened.name, original.name);
        Ok(())
    }

    #[test]
    fn a_changed_or_missing_blob_and_a_name_outside_of_the_image_are_refused() -> Result {
        let directory = tempfile::tempdir()?;
        let (packed, _) = packed(directory.path(), "image")?;
        let blobs: Vec<PathBuf> = std::fs::read_dir(packed.image.join("blobs/sha256"))?
            .filter_map(|it| Some(it.ok()?.path()))
            .collect();
        assert_eq!(blobs.len(), 4);
        for blob in blobs {
            let kept = std::fs::read(&blob)?;
            std::fs::write(&blob, [kept.as_slice(), b" "].concat())?;
            assert!(matches!(open(&packed.image), Err(ImageError::Changed(path)) if path == blob));
            std::fs::remove_file(&blob)?;
            assert!(matches!(open(&packed.image), Err(ImageError::Io { .. })));
            std::fs::write(&blob, kept)?;
        }
        let index = packed.image.join("index.json");
        let text = std::fs::read_to_string(&index)?.replace("sha256:", "sha256:../");
        std::fs::write(&index, text)?;
        assert!(matches!(open(&packed.image), Err(ImageError::Format { .. })));
        Ok(())
    }
}
