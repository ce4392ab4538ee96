//! Rows of Parquet, where this build has a writer of them: see the feature `parquet`.

use anyhow::Result;
#[cfg(feature = "parquet")]
pub use tidewatch_parquet::ParquetWriter;

/// Fails where the build has no writer, before anything is created.
pub fn check() -> Result<()> {
    if cfg!(feature = "parquet") {
        return Ok(());
    }
    anyhow::bail!(
        "--format=parquet: this build has no Parquet; make one that has by `cargo build --release --features parquet`"
    )
}

/// Stands where the writer would: there is none of it.
#[cfg(not(feature = "parquet"))]
pub struct ParquetWriter<W> {
    never: std::convert::Infallible,
    _out: std::marker::PhantomData<W>,
}

#[cfg(not(feature = "parquet"))]
impl<W> ParquetWriter<W> {
    pub fn new(_: W) -> Result<ParquetWriter<W>> {
        Err(check().expect_err("the build has no writer"))
    }

    pub fn push(&mut self, _: &tidewatch_model::Labels, _: &[i64], _: &[f64]) -> Result<()> {
        match self.never {}
    }

    pub fn finish(self) -> Result<W> {
        match self.never {}
    }
}
