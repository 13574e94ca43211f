//! Fail points: named places at which a test holds a worker, to kill it there, to stop it, or to change the world around it.
//!
//! Without the feature `failpoints` nothing of this is compiled in, and a release build refuses the feature. With it the
//! variable `FAILPOINTS` says what happens where, in the words of the crate `fail`: `FAILPOINTS='claimed=pause'` holds every
//! attempt there for good, `FAILPOINTS='claimed=1*sleep(5000)'` the first one for 5 s. A point that is named so logs
//! `fail point reached` and `fail point left`. Held is what came to the point; the rest of the worker lives on.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!(
    "feature failpoints: a release build has no fail points; build with debug assertions, or without the feature"
);

/// The fail points, in the order in which a message comes by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Point {
    /// `claim`: messages are picked and the clock is read; the claim is not asked for.
    Claim,
    /// `claimed`: the claim is committed and answered; nothing was done for this attempt.
    Claimed,
    /// `write`: there is a connection to the provider and the clock was read for the last time; no byte is written.
    /// Holds a thread of the worker.
    Write,
    /// `written`: the whole request is written; the answer is not read.
    Written,
    /// `answered`: the answer is read and understood; nobody but the attempt's own task knows it.
    Answered,
    /// `finish`: outcomes are gathered; the database is not told of them.
    Finish,
    /// `finished`: the database has answered that it recorded them; the worker does not count on it yet.
    Finished,
}

#[cfg(not(feature = "failpoints"))]
pub(crate) use self::absent::{reach, reach_after, reach_now};
#[cfg(feature = "failpoints")]
pub(crate) use self::present::{reach, reach_after, reach_now};

#[cfg(not(feature = "failpoints"))]
mod absent {
    use super::Point;

    /// Nothing.
    pub(crate) async fn reach(_: Point) {}

    /// Nothing.
    pub(crate) fn reach_now(_: Point) {}

    /// The work alone.
    pub(crate) async fn reach_after<T>(_: Point, _: impl Fn() -> bool, work: impl Future<Output = T>) -> T {
        work.await
    }
}

#[cfg(feature = "failpoints")]
mod present {
    use std::pin::pin;
    use std::time::Duration;

    use super::Point;

    impl Point {
        fn name(self) -> &'static str {
            match self {
                Self::Claim => "claim",
                Self::Claimed => "claimed",
                Self::Write => "write",
                Self::Written => "written",
                Self::Answered => "answered",
                Self::Finish => "finish",
                Self::Finished => "finished",
            }
        }

        fn is_named(self) -> bool {
            fail::list().iter().any(|(name, _)| name == self.name())
        }
    }

    /// Holds the task.
    pub(crate) async fn reach(point: Point) {
        if point.is_named() {
            // The crate holds threads: not one of those that drive the other tasks.
            let held = tokio::task::spawn_blocking(move || reach_now(point)).await;
            held.unwrap_or_else(|error| tracing::error!(%error, "a fail point failed"));
        }
    }

    /// Holds the thread: for code that cannot wait.
    pub(crate) fn reach_now(point: Point) {
        if point.is_named() {
            tracing::info!(point = point.name(), "fail point reached");
            fail::fail_point!(point.name());
            tracing::info!(point = point.name(), "fail point left");
        }
    }

    /// Holds `work` in its midst, a moment after `happened` became true, or at its end where it ends before.
    pub(crate) async fn reach_after<T>(point: Point, happened: impl Fn() -> bool, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let watch = async {
            while !happened() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let done = tokio::select! {
            done = &mut work => Some(done),
            () = watch => None,
        };
        if happened() {
            reach(point).await;
        }
        match done {
            Some(done) => done,
            None => work.await,
        }
    }
}
