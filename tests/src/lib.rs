//! Harness of the black-box tests and of the demo: private clusters, real processes, a pretend provider.
//!
//! Every test starts what it needs ([`Cluster`], [`Database`], [`Worker`], [`Sandbox`]) and drops it. What a killed
//! test process leaves behind, its reaper ends ([`run`]). [`history`] judges what became of every
//! message, by three journals.
//! Run tests by `make test-flow`, or alone by `scripts/run.sh cargo test -p sms-outbox-tests --test NAME`.

pub mod api;
pub mod cluster;
pub mod database;
pub mod fault;
pub mod history;
pub mod paths;
pub mod process;
pub mod proxy;
pub mod queue;
pub mod run;
pub mod sandbox;
pub mod scrape;
pub mod small_disk;
pub mod token;
pub mod wait;
pub mod worker;

pub use api::Api;
pub use cluster::{Cluster, Major, Stop};
pub use database::Database;
pub use fault::Fault;
pub use queue::Queue;
pub use sandbox::Sandbox;
pub use wait::{patience, wait_until};
pub use worker::Worker;

/// Makes one test for each major out of `async fn name(major: Major) -> anyhow::Result<()>`.
///
/// `on_majors! { every: sends_what_was_committed, … }` for the core flow: 15, 16, 17 and 18.
/// `on_majors! { ends: … }` for everything else: 15 and 18. `on_majors! { faults: … }` for what takes long: 18, and 15 with
/// `make faults`. Tests are named `name::pg18`.
#[macro_export]
macro_rules! on_majors {
    (every: $($name:ident),+ $(,)?) => {
        $($crate::on_majors!(@test $name pg15 V15, pg16 V16, pg17 V17, pg18 V18);)+
    };
    (ends: $($name:ident),+ $(,)?) => {
        $($crate::on_majors!(@test $name pg15 V15, pg18 V18);)+
    };
    (faults: $($name:ident),+ $(,)?) => {
        $(
            mod $name {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn pg18() -> anyhow::Result<()> {
                    super::$name($crate::Major::V18).await
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "the oldest server too: make faults"]
                async fn pg15() -> anyhow::Result<()> {
                    super::$name($crate::Major::V15).await
                }
            }
        )+
    };
    (@test $name:ident $($test:ident $major:ident),+) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() -> anyhow::Result<()> {
                    super::$name($crate::Major::$major).await
                }
            )+
        }
    };
}
