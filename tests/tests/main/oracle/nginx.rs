//! Debian's nginx, as it is installed: files, compression, includes, and a proxy to itself.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};

use anyhow::{Result, ensure};
use residue_tests::{
    machine::{self, Needed, PATIENCE, wait_until},
    target::Target,
};

use super::{assert_agreement, load::Load};

/// Where Debian installs it; an ordinary user's `PATH` has no `sbin`.
const NGINX: Needed = Needed {
    program: "/usr/sbin/nginx",
    package: "nginx",
};
const PATHS: [&str; 8] = [
    "/page.html",
    "/proxied/page.html",
    "/include.shtml",
    "/files/",
    "/rewritten/page/html",
    "/proxied/include.shtml?query=of%20some%20length",
    "/missing",
    "/large.html",
];

#[test]
fn nginx_has_the_stacks_that_framehop_finds() -> Result<()> {
    let _turn = machine::alone();
    if !machine::has("nginx_has_the_stacks_that_framehop_finds", NGINX) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    write_site(directory.path())?;
    let target = Target::spawn(
        Command::new(NGINX.program)
            .arg("-p")
            .arg(directory.path())
            .args(["-e", "error.log", "-c", "nginx.conf"]),
    )?;
    let socket = directory.path().join("http.sock");
    ensure!(
        wait_until(PATIENCE, || UnixStream::connect(&socket).is_ok()),
        "nginx does not listen"
    );
    let load = Load::start(move |round| request(&socket, round));
    assert_agreement("nginx", target.pid())?;
    load.finish()
}

/// One process, so that there is one to record; paths are relative to the directory.
fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off; master_process off; pid nginx.pid;
events {{ }}
http {{
  access_log access.log;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  types {{ text/html html shtml; }}
  gzip on; gzip_min_length 100;
  server {{
    listen unix:{directory}/http.sock;
    root {directory}/site;
    ssi on;
    location /files/ {{ alias {directory}/site/; autoindex on; }}
    location ~ ^/rewritten/(?<name>[a-z]+)/(?<kind>[a-z]+)$ {{ rewrite ^ /$name.$kind last; }}
    location /proxied/ {{
      proxy_pass http://unix:{directory}/http.sock:/;
      proxy_set_header Host localhost;
      add_header X-Proxied \"$request_id $upstream_response_time\";
    }}
  }}
}}
"
    )
}

fn write_site(directory: &Path) -> Result<()> {
    let site = directory.join("site");
    fs::create_dir(&site)?;
    fs::write(directory.join("nginx.conf"), configuration(directory))?;
    fs::write(site.join("page.html"), "a line of a page\n".repeat(100))?;
    fs::write(site.join("large.html"), "a line of a page\n".repeat(20_000))?;
    let include = "<!--#set var=\"name\" value=\"value\" --><!--#echo var=\"name\" -->\n\
                   <!--#include virtual=\"/page.html\" --><!--#include virtual=\"/files/\" -->\n";
    fs::write(site.join("include.shtml"), include.repeat(3))?;
    Ok(())
}

fn request(socket: &Path, round: u64) -> Result<()> {
    let path = PATHS[usize::try_from(round)? % PATHS.len()];
    let encoding = if round.is_multiple_of(3) {
        "gzip"
    } else {
        "identity"
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {encoding}\r\n\
         User-Agent: {:>1$}\r\nConnection: close\r\n\r\n",
        "load",
        10 + usize::try_from(round)? % 2000,
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 "), "nginx does not answer");
    Ok(())
}
