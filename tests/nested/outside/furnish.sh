#!/bin/bash
# mmdebstrap calls it with the new Debian's directory; $SCRATCH has what hypervisor_image.py put there.
set -eu
root=$1
scratch=$SCRATCH
mkdir -p "$root/srv/lab"
cp "$scratch/kernel" "$root/srv/lab/vmlinux"
cp "$scratch/initramfs" "$root/srv/lab/initramfs.cpio"
chmod -R a+rX "$root/srv"
pip() { chroot "$root" "$1/bin/pip" install --quiet --no-index --find-links /srv/wheels "${@:2}"; }
chroot "$root" python3 -m venv /opt/attachment-agent
cp "$scratch/requirements.txt" "$root/srv/requirements.txt"
if [ -d "$scratch/wheels" ]; then
    cp -r "$scratch/wheels" "$root/srv/wheels"
else
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"  # whom this machine trusts
    chroot "$root" /opt/attachment-agent/bin/pip wheel --quiet --wheel-dir /srv/wheels \
        -r /srv/requirements.txt $TEST_TOOLS setuptools wheel pbr
fi
pip /opt/attachment-agent -r /srv/requirements.txt setuptools wheel
chroot "$root" python3 -m venv /opt/tests
for packages in "$root"/opt/tests/lib/python3.*/site-packages; do
    echo "${packages/*\/opt\/tests//opt/attachment-agent}" > "$packages/agent.pth"
done
pip /opt/tests $TEST_TOOLS
install -D -m 600 "$scratch/key.pub" "$root/root/.ssh/authorized_keys"
echo hypervisor > "$root/etc/hostname"
echo '127.0.0.1 localhost hypervisor' > "$root/etc/hosts"
printf '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n' > "$root/etc/systemd/network/lab.network"
printf '%s\n' iscsi_tcp target_core_mod target_core_file iscsi_target_mod nvme_tcp nvmet nvmet_tcp \
    dm_multipath loop > "$root/etc/modules-load.d/lab.conf"
printf 'd /var/lib/volumes 0755 root root\n' > "$root/etc/tmpfiles.d/lab.conf"
cat > "$root/etc/multipath.conf" <<'CONF'
defaults {
    find_multipaths no
    user_friendly_names no
    polling_interval 2
    no_path_retry fail
}
CONF
echo 'InitiatorName=iqn.2026-01.org.example:hypervisor' > "$root/etc/iscsi/initiatorname.iscsi"
sed -i -e 's/^node.startup = .*/node.startup = manual/' \
    -e 's/^node.session.timeo.replacement_timeout = .*/node.session.timeo.replacement_timeout = 5/' \
    "$root/etc/iscsi/iscsid.conf"
sed -i 's/^#\?UseDNS.*//; s/^#\?PermitRootLogin.*/PermitRootLogin prohibit-password/' \
    "$root/etc/ssh/sshd_config"
chroot "$root" systemctl --quiet enable systemd-networkd iscsid multipathd libvirtd rabbitmq-server \
    nfs-server
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
    fstrim.timer dpkg-db-backup.timer systemd-networkd-wait-online.service
cp "$root"/boot/vmlinuz-* "$scratch/vmlinuz"
cp "$root"/boot/initrd.img-* "$scratch/initrd.img"
