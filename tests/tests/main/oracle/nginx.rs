//! Debian's nginx, as it is installed: files, compression, includes, and a proxy to itself.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
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
const PATHS: [&str; 11] = [
    "/page.html",
    "/proxied/page.html",
    "/include.shtml",
    "/files/",
    "/rewritten/page/html",
    "/proxied/include.shtml?query=of%20some%20length",
    "/missing",
    "/cached/page.html",
    "/cached/include.shtml?round",
    "/secret/page.html",
    "/large.html",
];

#[test]
fn nginx_has_the_stacks_that_framehop_finds() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(NGINX) {
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
  gzip on; gzip_min_length 100; gunzip on;
  proxy_cache_path cache keys_zone=zone:1m inactive=1s;
  map $http_user_agent $agent {{ ~*load$ \"load of $request_length\"; default none; }}
  limit_req_zone $request_uri zone=requests:1m rate=100r/s;
  server {{
    listen unix:{directory}/http.sock;
    root {directory}/site;
    ssi on; error_page 404 /page.html;
    sub_filter line row; sub_filter_once off;
    location /files/ {{ alias {directory}/site/; autoindex on; }}
    location ~ ^/rewritten/(?<name>[a-z]+)/(?<kind>[a-z]+)$ {{ rewrite ^ /$name.$kind last; }}
    location /proxied/ {{
      proxy_pass http://unix:{directory}/http.sock:/;
      proxy_set_header Host localhost;
      proxy_set_header X-Agent $agent;
      add_header X-Proxied \"$request_id $upstream_response_time\";
    }}
    location /cached/ {{
      proxy_pass http://unix:{directory}/http.sock:/;
      proxy_cache zone; proxy_cache_valid any 1s; proxy_cache_key $uri$arg_round;
    }}
    location /secret/ {{
      limit_req zone=requests burst=2 nodelay;
      auth_basic closed; auth_basic_user_file users;
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
    fs::write(directory.join("users"), "load:{PLAIN}load\n")?;
    fs::write(site.join("page.html"), "a line of a page\n".repeat(100))?;
    fs::write(site.join("large.html"), "a line of a page\n".repeat(20_000))?;
    let include = "<!--#set var=\"name\" value=\"value\" --><!--#echo var=\"name\" -->\n\
                   <!--#include virtual=\"/page.html\" --><!--#include virtual=\"/files/\" -->\n";
    fs::write(site.join("include.shtml"), include.repeat(3))?;
    Ok(())
}

fn request(socket: &Path, round: u64) -> Result<()> {
    let turn = usize::try_from(round)?;
    let path = PATHS[turn % PATHS.len()];
    let encoding = if turn % 3 == 0 { "gzip" } else { "identity" };
    let body = "b".repeat(if turn % 4 == 0 { turn % 30_000 } else { 0 });
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {encoding}\r\n\
         Authorization: Basic bG9hZDpsb2Fk\r\nContent-Length: {}\r\n\
         User-Agent: {:>2$}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
        "load",
        10 + turn % 2000,
    )?;
    let mut answer = Vec::new();
    // A server that refuses a request may close before it has read all of the body.
    if let Err(error) = stream.read_to_end(&mut answer) {
        ensure!(error.kind() == ErrorKind::ConnectionReset, error);
        return Ok(());
    }
    ensure!(answer.starts_with(b"HTTP/1.1 "), "nginx does not answer");
    Ok(())
}
