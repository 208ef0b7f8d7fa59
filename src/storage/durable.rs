//! placeholder
pub fn write(path: &std::path::Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write; use std::os::unix::fs::OpenOptionsExt;
    let mut f = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(path)?;
    f.write_all(bytes)?; f.sync_all()
}
