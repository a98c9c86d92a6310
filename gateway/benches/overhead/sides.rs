//! The processes that are measured: how each is started, and what the kernel says of it.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use vlm_gateway::{args::LogFormat, server, telemetry};

use crate::served;

/// A process that is asked, and ended with this.
pub struct Side {
    pub address: SocketAddr,
    process: Child,
    folder: Option<PathBuf>,
}

impl Drop for Side {
    fn drop(&mut self) {
        // SIGTERM, on which nginx ends its workers.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Side {
    pub fn replica() -> Self {
        Self::of_ours(&["replica"])
    }

    pub fn gateway(replica: SocketAddr) -> Self {
        Self::of_ours(&["gateway", &replica.to_string()])
    }

    fn of_ours(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut process = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // Its log is read as a collector reads it, and thrown away.
        let mut log = process.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { address: line.trim().parse().expect("an address"), process, folder: None }
    }

    pub fn nginx(replica: SocketAddr) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let folder = std::env::temp_dir().join(format!("overhead-nginx-{port}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(
            folder.join("nginx.conf"),
            include_str!("nginx.conf")
                .replace("REPLICA", &replica.to_string())
                .replace("ADDRESS", &address.to_string()),
        )
        .unwrap();
        let program = std::env::var("NGINX").unwrap_or_else(|_| "nginx".to_owned());
        let mut command = Command::new(program);
        command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "error.log"]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx; NGINX names its file");
        while TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { address, process, folder: Some(folder) }
    }

    /// The process and its children.
    fn processes(&self) -> Vec<String> {
        let own = self.process.id().to_string();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        children.split_whitespace().map(ToOwned::to_owned).chain([own.clone()]).collect()
    }

    /// Processor time of all of them.
    pub fn processor_seconds(&self) -> f64 {
        let of = |process: &String| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
            // After the name, which may hold spaces, utime and stime are fields 12 and 13, in ticks of 10 ms.
            let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
        };
        self.processes().iter().map(of).sum()
    }

    /// Resident memory of all of them.
    pub fn resident_mebibytes(&self) -> f64 {
        let of = |process: &String| {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
        };
        self.processes().iter().map(of).sum()
    }
}

/// The gateway as its process has it, but for the watches: the one model and its replica are told.
pub fn run_gateway(replica: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let app = served::gateway(&[replica], 2000);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        telemetry::init(LogFormat::Json);
        tokio::spawn(Arc::clone(&app.desk).run(CancellationToken::new()));
        let router = server::router(Arc::clone(&app));
        server::listen::serve(listener, router, app.life.clone(), server::listen::Bounds::default()).await;
    });
}
