# Turns a set of new namespaces (mount, network, process, host name) into a fresh machine called registry.test, then
# becomes the program given. Nothing here reaches the host: /etc and /run are copies in memory, the network has no way
# out, and everything ends with the program, which is process 1.
#
#   machine.sh SCRATCH PROGRAM [ARGUMENT...]
set -eu
scratch=$1
shift

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
mkdir -p "$scratch/home" "$scratch/tmp" "$scratch/etc" "$scratch/containers"

mount -t tmpfs -o mode=0755 tmpfs "$scratch/etc"
cp -a /etc/. "$scratch/etc"
mount --bind "$scratch/etc" /etc
rm -rf /etc/docker/certs.d /etc/docker/daemon.json /etc/containers/certs.d /etc/pierhead
mount -t tmpfs -o mode=0755 tmpfs /run

# Both engines keep layers as plain directories: that works on any file system. podman's cache of blobs that it has seen
# in registries has a fixed place, so the whole folder is ours.
mkdir -p /var/lib/containers /etc/containers /etc/docker
mount --bind "$scratch/containers" /var/lib/containers
cat > /etc/containers/storage.conf <<END
[storage]
driver = "vfs"
graphroot = "$scratch/containers/storage"
runroot = "/run/containers/storage"
END
printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' > /etc/containers/containers.conf
# Newer engines would keep images elsewhere and mean something else by an image's id.
echo '{ "features": { "containerd-snapshotter": false } }' > /etc/docker/daemon.json

# An address that is not loopback: docker verifies the certificates of those only.
printf '127.0.0.1 localhost\n::1 localhost\n192.0.2.1 registry.test\n' > /etc/hosts
ip link set lo up
ip address add 192.0.2.1/32 dev lo
hostname registry.test

export PATH HOME="$scratch/home" TMPDIR="$scratch/tmp"
unset XDG_RUNTIME_DIR XDG_CONFIG_HOME XDG_DATA_HOME DOCKER_HOST DOCKER_CONFIG DOCKER_CONTEXT REGISTRY_AUTH_FILE
cd "$scratch"
exec "$@"
