//! The queue in PostgreSQL.

pub mod connect;
pub mod operator;
