//! The tasks that must not end before the proxy does. A task that panics ends silently while the others go on, so a prober
//! or the watch could be missing for ever; liveness names it instead, and kubelet restarts the proxy.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// Which vital tasks have panicked.
#[derive(Debug, Default)]
pub struct VitalTasks {
    panicked: Mutex<Vec<&'static str>>,
}

/// Records the task's name if it is dropped by a panic. A task that is aborted or that ends regularly records nothing.
struct PanicGuard<'a> {
    tasks: &'a VitalTasks,
    name: &'static str,
}

impl VitalTasks {
    /// Runs a task, and records it if it panics.
    pub async fn run<T>(&self, name: &'static str, task: impl Future<Output = T>) -> T {
        let _guard = PanicGuard { tasks: self, name };
        task.await
    }

    /// The task that panicked first, if any.
    pub fn panicked(&self) -> Option<&'static str> {
        self.names().first().copied()
    }

    fn names(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.panicked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tasks.names().push(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn only_a_task_that_panicked_is_named() {
        let tasks = Arc::new(VitalTasks::default());
        let spawn = |name, task: fn() -> bool| {
            let tasks = Arc::clone(&tasks);
            tokio::spawn(async move {
                let work = async {
                    yield_now().await;
                    if task() {
                        pending::<()>().await;
                    }
                };
                tasks.run(name, work).await;
            })
        };
        spawn("ended", || false).await.unwrap();
        let aborted = spawn("aborted", || true);
        yield_now().await;
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        assert_eq!(tasks.panicked(), None);
        assert!(spawn("prober", || panic!("as a prober may")).await.is_err());
        assert_eq!(tasks.panicked(), Some("prober"));
    }
}
