//! The producer's promises against a real Redis that is lost, full, frozen or misused.

#[cfg(test)]
#[path = "against_redis/cache.rs"]
mod cache;
#[cfg(test)]
#[path = "against_redis/killed.rs"]
mod killed;
#[cfg(test)]
#[path = "against_redis/publish.rs"]
mod publish;
#[cfg(test)]
#[path = "against_redis/spool.rs"]
mod spool;
#[cfg(test)]
#[path = "against_redis/support.rs"]
mod support;
