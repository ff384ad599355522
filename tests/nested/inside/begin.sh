#!/bin/bash
# Run once in the fresh hypervisor, before its snapshot is taken: two guests boot.
set -eu
mkdir -p -m 777 /srv/lab/guests

# -icount: a guest's time passes with what it does. Else its clock ticks on while its host is busy,
# until all that an emulated guest does is to serve its clock: then it boots never.
define() {
    ports=$(for index in $(seq 1 12); do
        echo "<controller type='pci' index='$index' model='pcie-root-port'/>"
    done)
    cat > "/srv/lab/$1.xml" <<XML
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>$1</name><uuid>$2</uuid><memory unit='MiB'>160</memory><vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/srv/lab/vmlinux</kernel><initrd>/srv/lab/initramfs.cpio</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 nokaslr mitigations=off cryptomgr.notests audit=0 apparmor=0 no_timer_check</cmdline>
  </os>
  <features><acpi/></features>
  <on_reboot>restart</on_reboot><on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash>
  <devices>
    <controller type='pci' index='0' model='pcie-root'/>$ports
    <controller type='scsi' index='0' model='virtio-scsi'/>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='/srv/lab/guests/$1.console' append='on'/><target port='0'/></serial>
    <serial type='unix'><source mode='bind' path='/srv/lab/guests/$1.serial'/><target port='1'/></serial>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline><qemu:arg value='-icount'/><qemu:arg value='shift=4'/></qemu:commandline>
</domain>
XML
    virsh --quiet define "/srv/lab/$1.xml"
    virsh --quiet start "$1"
}

# What the agent's host has in its own time: nothing of it is waited for elsewhere.
for _ in $(seq 120); do virsh --quiet list > /dev/null 2>&1 && break; sleep 1; done
define guest-1 00000000-0000-4000-8000-0000000000a1
define guest-2 00000000-0000-4000-8000-0000000000a2
python3 - <<'PYTHON'
import socket
import time

end = time.monotonic() + 1700
for guest in ("guest-1", "guest-2"):
    while True:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            try:
                line.connect(f"/srv/lab/guests/{guest}.serial")
                line.sendall(b"1 hello .\n")
                said = b""
                while b"1 ok" not in said:
                    said += line.recv(100) or 1 / 0
                break
            except (OSError, ZeroDivisionError):
                assert time.monotonic() < end, f"{guest} does not boot"
        time.sleep(1)
PYTHON
rabbitmqctl --quiet await_startup
systemctl is-active libvirtd multipathd iscsid rabbitmq-server nfs-server
