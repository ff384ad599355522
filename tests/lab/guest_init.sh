#!/bin/sh
# The whole operating system of the lab's guest: loads the disk drivers, then obeys one
# command per line on the second serial port. Every line is "NUMBER COMMAND ARGUMENTS .";
# every answer is any count of "NUMBER = TEXT" and then "NUMBER ok" or "NUMBER error TEXT".
# A line without its "." was cut, by a migration, and is not obeyed: this shell ends, and the
# kernel with it, where a number is missing in its arithmetic.
# What the shell can do itself it does: an emulated guest of an emulated host takes long to fork.

export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do insmod "/modules/$module"; done < /modules/order

block_size=4096
blocks_per_mib=256

list() {
    for disk in /sys/block/vd* /sys/block/sd*; do
        [ -e "$disk/size" ] || continue
        serial=
        if [ -e "$disk/serial" ]; then
            read -r serial < "$disk/serial"
        elif [ -e "$disk/device/vpd_pg80" ]; then
            serial=$(tail -c +5 "$disk/device/vpd_pg80")
        fi
        read -r sectors < "$disk/size"
        read -r read_only < "$disk/ro"
        echo "${disk##*/} $((sectors * 512)) $read_only $serial"
    done
}

# One block full of the pattern, past every cache of this guest: another guest may look next.
write() { # disk, offset in MiB, pattern
    block="$3
"
    while [ "${#block}" -lt "$block_size" ]; do block=$block$block; done
    printf "%.${block_size}s" "$block" > /tmp/block
    dd if=/tmp/block of="/dev/$1" bs="$block_size" count=1 seek="$(($2 * blocks_per_mib))" \
        oflag=direct conv=notrunc 2> /tmp/reason
}

peek() { # disk, offset in MiB
    dd if="/dev/$1" of=/tmp/block bs="$block_size" count=1 \
        skip="$(($2 * blocks_per_mib))" iflag=direct 2> /tmp/reason || return 1
    md5sum < /tmp/block
    read -r word < /tmp/block
    echo "$word"
}

checksum() { # disk, offset in MiB, count in MiB
    dd if="/dev/$1" of=/tmp/sum bs=1048576 skip="$2" count="$3" iflag=direct \
        2> /tmp/reason || return 1
    sha256sum < /tmp/sum
    rm /tmp/sum
}

hold() { # disk
    # Opened by this shell: when the answer comes, the disk is held.
    {
        sleep 2147483647 <&5 > /dev/null 2>&1 3>&- 5<&- &
        echo $! > "/tmp/holder.$1"
    } 2> /tmp/reason 5< "/dev/$1"
}

release() { # disk
    kill "$(cat "/tmp/holder.$1")" 2> /tmp/reason && rm "/tmp/holder.$1"
}

persist() { # disk, sg_persist's options
    disk=$1
    shift
    sg_persist --no-inquiry "$@" "/dev/$disk" 2> /tmp/reason
}

rescan() {
    echo 1 > /sys/bus/pci/rescan
    for scsi in /sys/class/scsi_host/*/scan; do
        [ ! -e "$scsi" ] || echo '- - -' > "$scsi"
    done
    for disk in /sys/block/sd*/device/rescan; do
        [ ! -e "$disk" ] || echo 1 > "$disk"
    done
}

obey() {
    case $1 in
        cut) echo "half a line" > /tmp/reason; return 1 ;;
        hello) cat /proc/sys/kernel/random/boot_id ;;
        list | rescan) "$1" ;;
        write | peek | checksum | hold | persist | release) "$@" ;;
        errors) dmesg | grep 'I/O error' || true ;;
        poweroff | reboot) (sleep 0.2; "$1" -f) > /dev/null 2>&1 3>&- & ;;
        *) echo "no such command: $1" > /tmp/reason; return 1 ;;
    esac
}

mkdir -p /tmp
stty -F /dev/ttyS1 raw -echo
exec 3<> /dev/ttyS1
echo "guest is ready"
while true; do
    # shellcheck disable=SC2086  # arguments are words
    read -r number line <&3 || continue
    case $line in *" .") words=${line% .} ;; *) words=cut ;; esac
    : > /tmp/reason
    if obey $words > /tmp/answer; then end=ok; else end="error $(tr '\n' ' ' < /tmp/reason)"; fi
    { while IFS= read -r line; do echo "$number = $line"; done < /tmp/answer; echo "$number $end"; } >&3
done
