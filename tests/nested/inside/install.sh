#!/bin/bash
# What docs/operate.rst tells a user to do, word by word.
set -eu
cd /srv/project
systemctl stop attachment-agent 2> /dev/null || true  # an older one, in a machine that was kept
/opt/attachment-agent/bin/pip install --quiet --no-index --no-deps --force-reinstall "$WHEEL"
install -D -m 600 etc/attachment-agent.conf /etc/attachment-agent/attachment-agent.conf
install -m 644 etc/systemd/*.service /etc/systemd/system/
cat > /etc/attachment-agent/attachment-agent.conf <<'CONF'
[DEFAULT]
host = hypervisor
transport_url = rabbit://guest:guest@127.0.0.1:5672//
debug = true
[storage]
my_ip = 127.0.0.1
CONF
systemctl daemon-reload
systemctl enable --quiet --now attachment-agent
ln -sf /opt/attachment-agent/bin/attachctl /usr/local/bin/attachctl
