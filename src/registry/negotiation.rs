//! Which clients get something else than what a tag names?
//!
//! Docker's clients before 1.10, and scripts that are as old, know images and no lists of them. For them Distribution
//! answers a tag that names a Docker manifest list with the list's image for Linux on amd64, and so do we, as
//! far as a client says that it takes Docker's images and nothing newer.
//!
//! Absent on purpose: every other negotiation. The specification asks for none, and refusing what is stored because a
//! header does not name it, as Distribution does with OCI's types, helps nobody.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};

use crate::oci::media_type::{DOCKER_MANIFEST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED};
use crate::oci::{Digest, Manifest, Platform};

/// What clients of that age name beside the image: what came before it, and its JSON.
const AS_OLD: [&str; 3] = [DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, "application/json"];

/// Whether a client says that it takes Docker's images, and nothing newer (RFC 9110, 12.5.1). The header may come in
/// several lines; what has the weight 0 is not taken.
pub(super) fn takes_images_only(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().map(HeaderValue::to_str);
    let ranges = lines.flat_map(|line| line.unwrap_or("*/*").split(',')).map(str::trim);
    let mut taken = ranges.filter(|range| !range.is_empty()).filter_map(taken);
    let mut images = false;
    taken.all(|kind| {
        let is_image = kind.eq_ignore_ascii_case(DOCKER_MANIFEST);
        images |= is_image;
        is_image || AS_OLD.iter().any(|old| kind.eq_ignore_ascii_case(old))
    }) && images
}

/// The type of a media range, unless its weight says that it is not taken.
fn taken(range: &str) -> Option<&str> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?;
    let weight = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let is_nothing = weight.is_some_and(|(_, value)| value.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0));
    (!is_nothing).then_some(kind)
}

/// The image for Linux on amd64 in a list.
pub(super) fn usual_image(list: Bytes) -> Option<Digest> {
    // A list that another program accepted and we would not is served as it is.
    let list = Manifest::parse(list, None).ok()?;
    let is_usual = |platform: &Platform| platform.os == "linux" && platform.architecture == "amd64";
    list.children.into_iter().find(|child| child.platform.as_ref().is_some_and(is_usual)).map(|child| child.digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::{DOCKER_LIST, OCI_INDEX, OCI_MANIFEST};

    fn takes_images_only_with(lines: &[String]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        takes_images_only(&headers)
    }

    #[test]
    fn only_who_names_images_and_nothing_newer_takes_images_only() {
        let line = |text: &str| vec![text.to_owned()];
        for (lines, expected) in [
            (vec![], false),
            (line(""), false),
            (line("*/*"), false),
            (line("application/*"), false),
            (line("application/json"), false),
            (line(DOCKER_SCHEMA1), false),
            (line(DOCKER_MANIFEST), true),
            (line(&DOCKER_MANIFEST.to_uppercase()), true),
            (line(&format!("{DOCKER_MANIFEST}; charset=utf-8 ;q=0.5,")), true),
            (line(&format!("{DOCKER_MANIFEST}, {DOCKER_SCHEMA1_SIGNED}, application/json")), true),
            (line(&format!("{DOCKER_MANIFEST}, */*;q=0.1")), false),
            (line(&format!("{DOCKER_MANIFEST}, */*; q=0")), true),
            (line(&format!("{DOCKER_MANIFEST};q=0")), false),
            (line(&format!("{DOCKER_MANIFEST},{DOCKER_LIST}")), false),
            (line(&format!("{DOCKER_MANIFEST},{OCI_INDEX}")), false),
            (vec![DOCKER_MANIFEST.to_owned(), OCI_MANIFEST.to_owned()], false),
            (vec![DOCKER_MANIFEST.to_owned(), DOCKER_SCHEMA1.to_owned()], true),
        ] {
            assert_eq!(takes_images_only_with(&lines), expected, "{lines:?}");
        }
        let mut headers = HeaderMap::from_iter([(ACCEPT, DOCKER_MANIFEST.parse().unwrap())]);
        headers.append(ACCEPT, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(!takes_images_only(&headers), "who cannot be understood may take anything");
    }
}
