//! What a file is known by: its content, whatever it is called.

use std::io::{self, Read};

use passerby_shared::IdempotencyKey;
use sha2::{Digest, Sha256};

/// The idempotency key of one chunk of a file read into a session.
///
/// The same session, content and position make the same key, so that a chunk read again is known.
pub fn chunk_key(session_id: &str, file_sha256: &[u8; 32], chunk_index: u64) -> IdempotencyKey {
    IdempotencyKey::derived_from(
        "ingest",
        &[
            session_id.as_bytes(),
            file_sha256,
            &chunk_index.to_be_bytes(),
        ],
    )
}

/// Reads to the end and returns the SHA-256. `on_bytes` hears after each piece how many were read.
pub(super) fn sha256(mut reader: impl Read, mut on_bytes: impl FnMut(u64)) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 256 * 1024];
    let mut n_read = 0;
    loop {
        let n = match reader.read(&mut piece) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&piece[..n]);
        n_read += n as u64;
        on_bytes(n_read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_session_content_and_position() {
        let key = chunk_key("s", &[1; 32], 7);
        assert_eq!(key, chunk_key("s", &[1; 32], 7));
        assert_ne!(key, chunk_key("t", &[1; 32], 7));
        assert_ne!(key, chunk_key("s", &[2; 32], 7));
        assert_ne!(key, chunk_key("s", &[1; 32], 8));
    }

    #[test]
    fn the_key_never_changes_from_one_release_to_the_next() {
        let key = chunk_key("s", &[1; 32], 7).to_string();
        assert_eq!(key, "1d140af2-a095-5d29-8486-6bcf2b9ba285");
    }

    #[test]
    fn the_digest_is_sha256_of_every_byte() {
        let mut heard = 0;
        let digest = sha256(&b"abc"[..], |n| heard = n).unwrap();
        assert_eq!(digest[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(heard, 3);
    }
}
