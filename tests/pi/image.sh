#!/usr/bin/env bash
# The parts of an emulated Raspberry Pi 3B that change seldom: kernel, initrd, device tree and a root file system.
#   tests/pi/image.sh OUT
# Makes OUT/{vmlinuz,initrd.gz,pi.dtb,rootfs.tar}; needs root, the packages listed in tests/pi/README.md and a network.
set -euo pipefail
out=$(realpath -m "$1")
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    update-binfmts --enable qemu-aarch64
fi

dpkg --add-architecture arm64
apt-get update -qq
kernel=$(apt-cache depends linux-image-arm64:arm64 | awk '/Depends: linux-image/ {print $2; exit}')
(cd "$work" && apt-get download -qq "${kernel%%:*}:arm64" busybox-static:arm64)
dpkg-deb -x "$work"/linux-image-*.deb "$work/kernel"
dpkg-deb -x "$work"/busybox-static_*.deb "$work/busybox"
version=$(ls "$work/kernel/lib/modules")

mmdebstrap --quiet --architectures=arm64 --variant=apt \
    --include=systemd,systemd-sysv,dbus,udev,kmod,iproute2,can-utils,python3,python3-venv,procps,ca-certificates \
    bookworm "$work/rootfs.tar"
mkdir "$work/modules"
mkdir -p "$work/modules/lib/modules"
cp -a "$work/kernel/lib/modules/$version" "$work/modules/lib/modules/"
depmod -b "$work/modules" "$version"
tar -C "$work/modules" --owner=0 --group=0 --append -f "$work/rootfs.tar" ./lib/modules 2>/dev/null \
    || tar -C "$work/modules" --owner=0 --group=0 --append -f "$work/rootfs.tar" lib/modules

mkdir -p "$work/initrd/bin" "$work/initrd/mod" "$work/initrd/proc" "$work/initrd/dev" "$work/initrd/sys" "$work/initrd/root"
cp "$work/busybox/bin/busybox" "$work/initrd/bin/"
wanted="raspberrypi-cpufreq bcm2835 sdhci sdhci-pltfm sdhci-iproc jbd2 mbcache crc16 ext4 crc32c_generic bcm2835_wdt"
order=""
for name in $wanted; do
    file=$(find "$work/kernel/lib/modules/$version" -name "$name.ko*" -o -name "${name//-/_}.ko*" | head -1)
    [ -n "$file" ] || continue
    cp "$file" "$work/initrd/mod/"
    order="$order $(basename "$file")"
done
cat > "$work/initrd/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
for m in$order; do /bin/busybox insmod /mod/\$m; done
n=0
while [ ! -b /dev/mmcblk0 ] && [ \$n -lt 100 ]; do /bin/busybox sleep 0.2; n=\$((n+1)); done
/bin/busybox mount -t ext4 /dev/mmcblk0 /root
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /lib/systemd/systemd
INIT
chmod +x "$work/initrd/init"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc | gzip -1) > "$out/initrd.gz"

dtb=$(find "$work/kernel" -name bcm2837-rpi-3-b.dtb | head -1)
cp "$dtb" "$out/pi.dtb"
fdtput -r "$out/pi.dtb" /soc/serial@7e201000/bluetooth
fdtput -c "$out/pi.dtb" /system
fdtput -t x "$out/pi.dtb" /system linux,revision a02082
cp "$work"/kernel/boot/vmlinuz-* "$out/vmlinuz"
mv "$work/rootfs.tar" "$out/rootfs.tar"
