//! The pending calls of all processes. A process registers each call to a store, and waits for the reply. The history
//! decides when the call takes effect, and when its reply arrives. So a process can be killed or paused before the
//! effect, and between the effect and the reply.

use std::fmt::{Debug, Display};

use rand::RngExt as _;
use tokio::sync::oneshot;
use votes::{Partition, StoreError};

use crate::{
    process::Process,
    world::{CallFault, ProcessKind, World},
};

/// A pending call.
pub(crate) struct Operation {
    id: u64,
    pub(crate) process: usize,
    pub(crate) partition: Option<Partition>,
    stage: Stage,
    /// Whether the request has left a process that was paused or killed. It takes effect all the same.
    is_in_flight: bool,
}

/// What is left of a call.
enum Stage {
    /// A request that has not taken effect. If the caller stops waiting, the request takes effect all the same.
    Request(Effect),
    /// The call waits for an event: for records, or for a change of the assignment. If the caller stops waiting, the call
    /// ends.
    Wait(WaitsFor, Effect),
    /// A reply that has not arrived.
    Reply(Reply),
}

#[derive(Clone, Copy)]
pub(crate) enum WaitsFor {
    Records(Partition),
    Notice,
}

/// The effect of a call in the world. It returns the delivery of the reply.
type Effect = Box<dyn FnOnce(&mut World) -> Reply + Send>;

/// Delivers the reply.
type Reply = Box<dyn FnOnce() + Send>;

/// The steps that a task must not begin after it has been stopped: it only finishes its batch.
const NOT_AFTER_STOP: [&str; 8] =
    ["range", "summary", "add_to_summary", "purge_expired", "size", "clear", "expire", "next_batch"];

/// The description of a call.
pub(crate) struct Call {
    pub(crate) store: &'static str,
    pub(crate) name: &'static str,
    pub(crate) partition: Option<Partition>,
    /// The arguments, if the history is traced.
    pub(crate) arguments: Option<String>,
}

impl Call {
    pub(crate) fn failure(&self) -> StoreError {
        match self.partition {
            Some(partition) => StoreError::new(self.store, format!("simulated failure in partition {partition}")),
            None => StoreError::new(self.store, "simulated failure"),
        }
    }

    /// Adds the call to the trace.
    pub(crate) fn trace(&self, world: &mut World, process: usize, result: impl Display) {
        world.trace_line(|| {
            let partition = self.partition.map(|partition| format!(" {partition}")).unwrap_or_default();
            let arguments = self.arguments.as_deref().unwrap_or_default();
            format!("  process {process}: {}{partition} {arguments} -> {result}", self.name)
        });
    }
}

impl Process {
    /// Describes a call.
    pub(crate) fn describe(
        &self,
        store: &'static str,
        name: &'static str,
        partition: impl Into<Option<Partition>>,
        arguments: impl FnOnce() -> String,
    ) -> Call {
        let is_traced = self.lock().trace.is_some();
        Call { store, name, partition: partition.into(), arguments: is_traced.then(arguments) }
    }

    /// Executes a call. The call takes effect completely or not at all, and its reply may be lost.
    pub(crate) async fn call<R: Debug + Send + 'static>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut World) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let id = self.id;
        self.request(call, move |call, world, fault| {
            if fault == CallFault::Refused {
                call.trace(world, id, "refused");
                return Err(call.failure());
            }
            let reply = effect(world);
            let is_lost = fault == CallFault::ReplyLost;
            call.trace(world, id, format_args!("{reply:?}{}", if is_lost { ", reply lost" } else { "" }));
            if is_lost { Err(call.failure()) } else { Ok(reply) }
        })
        .await
    }

    /// Executes a call whose effect depends on the fault.
    pub(crate) async fn request<R: Send + 'static>(
        &self,
        call: Call,
        effect: impl FnOnce(&Call, &mut World, CallFault) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let (process, partition, name) = (self.id, call.partition, call.name);
        let effect: Effect = Box::new(move |world| {
            let fault = world.draw_fault();
            let result = effect(&call, world, fault);
            // A failed measurement of the lag does not concern the task of the partition.
            if result.is_err()
                && call.name != "bounds"
                && let Some(partition) = call.partition
            {
                world.processes[process].reader(partition).note_failure();
            }
            Box::new(move || drop(sender.send(result)))
        });
        self.begin(name, partition, Stage::Request(effect));
        match receiver.await {
            Ok(result) => result,
            // The history dropped the call: the process is killed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Executes a call that waits for an event. It takes effect only if the caller still waits for it then.
    pub(crate) async fn wait_for<R: Send + 'static>(
        &self,
        event: WaitsFor,
        effect: impl FnOnce(&mut World) -> R + Send + 'static,
    ) -> R {
        let (sender, receiver) = oneshot::channel();
        let effect: Effect = Box::new(move |world| {
            let result = effect(world);
            Box::new(move || drop(sender.send(result)))
        });
        let (name, partition) = match event {
            WaitsFor::Records(partition) => ("next_batch", Some(partition)),
            WaitsFor::Notice => ("assignment", None),
        };
        let id = self.begin(name, partition, Stage::Wait(event, effect));
        let _guard = WaitGuard { process: self, id };
        match receiver.await {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    }

    fn begin(&self, name: &'static str, partition: Option<Partition>, stage: Stage) -> u64 {
        let mut world = self.lock();
        let process = &mut world.processes[self.id];
        if process.is_dead {
            return 0;
        }
        process.calls += 1;
        let is_stopping =
            process.is_stopping || partition.is_some_and(|partition| process.reader(partition).is_stopping);
        if is_stopping && NOT_AFTER_STOP.contains(&name) {
            world.report_violation(|| {
                format!("process {} begins {name} of {partition:?} after it was stopped", self.id)
            });
        }
        if world.is_immediate {
            let (Stage::Request(effect) | Stage::Wait(_, effect)) = stage else { unreachable!("a call begins") };
            let reply = effect(&mut world);
            drop(world);
            reply();
            return 0;
        }
        world.last_operation += 1;
        let id = world.last_operation;
        world.operations.push(Operation { id, process: self.id, partition, stage, is_in_flight: false });
        world.has_begun.notify_one();
        id
    }
}

/// Ends a call that waits for an event, when the caller stops waiting.
struct WaitGuard<'a> {
    process: &'a Process,
    id: u64,
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.process.lock().operations.retain(|operation| operation.id != self.id);
    }
}

impl World {
    /// Returns the indexes of the operations that can be executed now.
    pub(crate) fn executable(&self) -> Vec<usize> {
        (0..self.operations.len()).filter(|index| self.is_executable(&self.operations[*index])).collect()
    }

    fn is_executable(&self, operation: &Operation) -> bool {
        let process = &self.processes[operation.process];
        if operation.is_in_flight {
            return true;
        }
        let is_ready = match operation.stage {
            Stage::Request(_) | Stage::Reply(_) => true,
            Stage::Wait(WaitsFor::Notice, _) => {
                process.notices.front().is_some_and(|notice| notice.ready_at_step <= self.step)
            }
            Stage::Wait(WaitsFor::Records(partition), _) => {
                let log = self.log(partition);
                process.readers.get(&partition).is_some_and(|reader| {
                    let is_readable = reader.is_assigned || process.kind == ProcessKind::Other;
                    let from = reader.read_offset;
                    is_readable && !reader.is_stalled && (from < log.bounds().start || log.has_records_from(from))
                })
            }
        };
        is_ready && !process.is_paused
    }

    /// Executes an operation: a request takes effect, or a reply arrives. If `is_reply_immediate`, the reply of a
    /// request arrives at once.
    pub(crate) fn execute(&mut self, index: usize, is_reply_immediate: bool) {
        let Operation { id, process, partition, stage, is_in_flight } = self.operations.swap_remove(index);
        let reply = match stage {
            Stage::Request(effect) => effect(self),
            // Nothing lies between the event and its arrival: a caller that stops waiting has read nothing.
            Stage::Wait(_, effect) => return effect(self)(),
            Stage::Reply(reply) => return reply(),
        };
        if is_in_flight && self.processes[process].is_dead {
            return;
        }
        if is_reply_immediate && !self.processes[process].is_paused {
            return reply();
        }
        self.operations.push(Operation { id, process, partition, stage: Stage::Reply(reply), is_in_flight: false });
    }

    /// Whether the process has requests whose effect or reply is pending.
    pub(crate) fn has_requests(&self, process: usize) -> bool {
        let is_request = |operation: &Operation| !matches!(operation.stage, Stage::Wait(..));
        self.operations.iter().any(|operation| operation.process == process && is_request(operation))
    }

    pub(crate) fn has_operations(&self, process: usize) -> bool {
        self.operations.iter().any(|operation| operation.process == process)
    }

    /// Decides for each request of a process whether it is in flight when the process is paused or killed. Returns how
    /// many are.
    pub(crate) fn send_requests(&mut self, process: usize, probability: f64) -> usize {
        let mut in_flight = 0;
        for index in 0..self.operations.len() {
            let operation = &self.operations[index];
            if operation.process == process
                && matches!(operation.stage, Stage::Request(_))
                && (operation.is_in_flight || self.rng.random_bool(probability))
            {
                self.operations[index].is_in_flight = true;
                in_flight += 1;
            }
        }
        in_flight
    }

    /// Drops the operations of a killed process, except the requests in flight.
    pub(crate) fn drop_operations(&mut self, process: usize) -> Vec<Operation> {
        let (dropped, kept) = std::mem::take(&mut self.operations)
            .into_iter()
            .partition(|operation| operation.process == process && !operation.is_in_flight);
        self.operations = kept;
        dropped
    }
}
