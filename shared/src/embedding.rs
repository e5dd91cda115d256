//! A track's appearance, for recognising a person again.

use serde::{Deserialize, Serialize};

use crate::validate::{self, Invalid};

/// Most numbers in one embedding.
const MAX_DIMENSIONS: usize = 8192;

/// A track's appearance vector, cached in Redis with a TTL and never stored in Postgres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Takes a vector of 1…8192 finite numbers.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the vector is empty, too long or holds a number that is not finite.
    pub fn new(vector: Vec<f32>) -> Result<Self, Invalid> {
        if vector.is_empty() || vector.len() > MAX_DIMENSIONS {
            return Err(Invalid::new(
                "embedding",
                format_args!(
                    "has {} dimensions, 1…{MAX_DIMENSIONS} are allowed",
                    vector.len()
                ),
            ));
        }
        for &value in &vector {
            validate::finite("embedding", value)?;
        }
        Ok(Self(vector))
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// The vector as little-endian `f32`s, four bytes each: the form it is cached in.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// Reads the form that [`Embedding::to_bytes`] writes.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the bytes are not whole numbers of four, or the vector is not valid.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Invalid::new(
                "embedding",
                "its length is no multiple of 4 bytes",
            ));
        }
        Self::new(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_bring_the_vector_back() {
        let embedding = Embedding::new(vec![0.25, -1.5, 3e9]).unwrap();
        assert_eq!(Embedding::from_bytes(&embedding.to_bytes()), Ok(embedding));
        assert!(Embedding::from_bytes(&[0; 5]).is_err());
        assert!(Embedding::new(vec![f32::NAN]).is_err());
    }
}
