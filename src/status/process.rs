//! The standard process metrics, from `/proc`; elsewhere there are none.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// Reads the metrics of this process when it is collected.
#[derive(Debug)]
pub(super) struct Process;

/// The figures.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    cpu: f64,
    started: f64,
    virtual_memory: f64,
    resident_memory: f64,
    threads: f64,
}

impl Figures {
    /// Parses `/proc/PID/stat`, given the machine's boot time in seconds since the epoch.
    fn read(stat: &str, booted: f64, ticks: f64, page: f64) -> Option<Figures> {
        // The process chooses its own name, which may contain spaces and parentheses. The third field follows the
        // last one.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Figures {
            cpu: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            started: booted + field(22)? / ticks,
            virtual_memory: field(23)?,
            resident_memory: field(24)? * page,
        })
    }

    fn of_this_process() -> Option<Figures> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let booted = machine.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
        Figures::read(&stat, booted, clock_ticks_per_second() as f64, page_size() as f64)
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory itself.
            let count = open.count().saturating_sub(1);
            gauge("process_open_fds", "Open file descriptors", count as f64)?;
            if let Some(most) = getrlimit(Resource::Nofile).current {
                gauge("process_max_fds", "Maximum number of open file descriptors", most as f64)?;
            }
        }
        let Some(figures) = Figures::of_this_process() else { return Ok(()) };
        gauge("process_start_time_seconds", "When the process started", figures.started)?;
        gauge("process_virtual_memory_bytes", "Virtual memory", figures.virtual_memory)?;
        gauge("process_resident_memory_bytes", "Resident memory", figures.resident_memory)?;
        gauge("process_threads", "Threads", figures.threads)?;
        let cpu = ConstCounter::new(figures.cpu);
        let kind = cpu.metric_type();
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time, user and system",
            None,
            kind,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_are_read_whatever_the_program_is_called() {
        let stat =
            "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 1000 4096 2 18446744073709551615 1";
        let figures = Figures::read(stat, 5000.0, 100.0, 4096.0).unwrap();
        let expected = Figures {
            cpu: 3.0,
            started: 5010.0,
            virtual_memory: 4096.0,
            resident_memory: 8192.0,
            threads: 3.0,
        };
        assert_eq!(figures, expected);
        assert_eq!(Figures::read("7 (x", 0.0, 100.0, 1.0), None);
        assert_eq!(Figures::read("7 (x) S 1", 0.0, 100.0, 1.0), None);
    }
}
