"""Start Ceph's gateway in the same way as the tests, behind a proxy on port 9000.

The proxy declares that clients use TLS. Without that, the gateway refuses notification topics that have a password.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.support.servers import ceph_gateway

PROXY = """
daemon off;
events {{}}
http {{
  access_log off;
  server {{
    listen 9000;
    client_max_body_size 0;
    location / {{
      proxy_pass {gateway};
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"""

signal.signal(signal.SIGTERM, signal.default_int_handler)
with ceph_gateway() as gateway:
    Path("nginx.conf").write_text(PROXY.format(gateway=gateway.endpoint_url))
    subprocess.run(["nginx", "-c", str(Path("nginx.conf").absolute())], check=True)
