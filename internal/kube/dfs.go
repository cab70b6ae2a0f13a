package kube

import (
	"net/url"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/diagnosis"
	"github.com/berth-run/berth/internal/engine"
)

const (
	// dfsVolume is the name of the volume with the shared filesystem.
	dfsVolume = "dfs"
	// dfsShare is where the sidecar mounts it.
	dfsShare = "/berth-dfs"
)

// mountScript mounts JuiceFS, and ends with the mount. It asks the metadata
// server first: the mount itself would try for minutes, and what the sidecar
// says last is what its status keeps. A sidecar that is started anew finds the
// mount of the one before.
//
// Once there is a mount it has to give a file that is in the storage of the
// volume's blocks, as tasks find out late that there is none: it is made by the
// first mount that lacks it. No step of it waits for an answer that may never
// come, but a process of its own, which is freed by the mount's end.
//
// $1: the metadata's URL, $2: where, then options of juicefs mount.
const mountScript = `while grep -q " $2 fuse" /proc/mounts && umount -l "$2"; do :; done
url=$1 code=0
timeout 10 juicefs status "$url" >/dev/null 2>/tmp/berth-dfs || code=$?
if [ "$code" -ne 0 ]; then
  tail -n 6 /tmp/berth-dfs >&2
  [ "$code" -ne 124 ] || echo "the metadata server gave no answer within 10 s" >&2
  exit 1
fi
juicefs mount "$@" &
mount=$!
trap 'kill -TERM $mount' TERM INT
refuse() {
  [ ! -e /tmp/berth-dfs-usable ] && : > /tmp/berth-dfs-refused && echo "the object storage $1" >&2 && kill -KILL $mount
}
{
  until grep -q " $2 fuse" /proc/mounts; do sleep 0.05; done
  { sleep 10; refuse "gave no answer within 10 s"; } &
  check=$2/.berth/check
  if [ ! -s "$check" ]; then
    said=$( { mkdir -p "$2/.berth" && chmod 755 "$2/.berth" && echo usable | dd of="$check" conv=fsync; } 2>&1 )
  else
    said=$(cat "$check" 2>&1)
  fi
  case $said in
  *"nput/output error"*) refuse "can't be used: $said" ;;
  *) : > /tmp/berth-dfs-usable ;;
  esac
} &
while :; do
  wait $mount
  code=$?
  kill -0 $mount 2>/dev/null && continue
  [ ! -e /tmp/berth-dfs-refused ] || exit 1
  exit $code
done
`

// mountedScript waits until the mount can be used, before anything else of the
// pod starts. It makes the working folder of a plain task, which has no agent
// that would: anybody's, as nobody knows yet whom the image runs as.
//
// $2: the task, or nothing.
const mountedScript = `i=0
until [ -e /tmp/berth-dfs-usable ]; do
  i=$((i + 1)); [ "$i" -lt 1200 ] || exit 1
  sleep 0.05
done
[ -n "$2" ] || exit 0
cd "$1" && mkdir -p ` + berth.DFSWork + ` && chmod 755 .berth && chmod 1777 ` + berth.DFSWork + ` && mkdir -p -m 1777 "` + berth.DFSWork + `/$2" || echo "no working folder"
exit 0`

// leaveScript takes the working folder of a plain task away that it left empty,
// or with all that is in it.
//
// $2: the task, $3: never, where nothing is kept.
const leaveScript = `cd "$1/` + berth.DFSWork + `" || exit 0
if [ "$3" = never ]; then rm -rf "$2"; else rmdir "$2" 2>/dev/null; fi
exit 0`

// answersScript asks for a name that no cache has. Who asks a mount that is
// silent can't be killed, and whoever waits for them, or for a pipe that they
// hold, waits too: they are left alone, and nobody else asks until they are back.
// How long that is goes by a clock: a busy node takes its time for every turn.
//
// $2: for how many seconds it waits.
const answersScript = `asking=/tmp/berth-dfs-asking answer=/tmp/berth-dfs-answer
if mkdir $asking 2>/dev/null; then
  { said=$(ls "$1/.berth-probe-$$" 2>&1); echo "$said" > $answer; rmdir $asking; } </dev/null >/dev/null 2>&1 &
fi
read -r up idle < /proc/uptime
limit=$((${up%.*} + 1 + $2))
while [ -e $asking ]; do
  read -r up idle < /proc/uptime
  [ "${up%.*}" -lt $limit ] || { echo "` + diagnosis.DFSSilence + `: nothing within $2 s"; exit 1; }
  sleep 0.1
done
said=$(cat $answer)
case $said in
*"No such file"*) ;;
*) echo "` + diagnosis.DFSSilence + `: $said"; exit 1 ;;
esac`

// addDFS gives a pod the filesystem that the tasks of its infrastructure share:
// a claim, or JuiceFS by a sidecar that mounts it (FUSE) before all else starts
// and shares the mount by propagation. The sidecar is privileged, which that
// takes; the task's own container stays as it is.
func addDFS(pod *corev1.Pod, order engine.Order, dfs *berth.DFS) {
	main := &pod.Spec.Containers[0]
	if dfs.Claim != "" {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: dfsVolume, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: dfs.Claim, ReadOnly: dfs.ReadOnly},
		}})
		main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: dfsVolume, MountPath: dfs.Path, ReadOnly: dfs.ReadOnly})
		if order.Agent == nil && !dfs.ReadOnly {
			nameWork(main, order, dfs) // nobody is there who would make it
		}
		return
	}
	address, password := DFSAddress(dfs)
	// A cache of 1 GiB at most, as it is on the node's own disk, and no
	// copies of the metadata by every task: they are the volume's owner's.
	command := []string{
		"sh", "-c", mountScript, diagnosis.DFSContainer, address, dfsShare,
		"--no-usage-report", "--no-syslog", "--backup-meta=0", "--cache-size=1024", "--free-space-ratio=0.2",
	}
	if dfs.ReadOnly {
		command = append(command, "--read-only")
	}
	sidecar := corev1.Container{
		Name: diagnosis.DFSContainer, Image: dfs.Image, ImagePullPolicy: pullPolicy(&berth.TaskSpec{Image: dfs.Image, Pull: berth.PullMissing}),
		RestartPolicy: ptr(corev1.ContainerRestartPolicyAlways),
		Command:       literal(command),
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("256Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          &corev1.SecurityContext{Privileged: ptr(true), RunAsUser: ptr(int64(0)), RunAsGroup: ptr(int64(0)), RunAsNonRoot: ptr(false)},
		VolumeMounts:             []corev1.VolumeMount{{Name: dfsVolume, MountPath: dfsShare, MountPropagation: ptr(corev1.MountPropagationBidirectional)}},
		ReadinessProbe:           probe(12, 15, 1, answersScript, "8"),
		// What comes next waits for this, and for no startup probe: a node asks
		// those once a second, and only of what it has noticed to run.
		Lifecycle: &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: inSidecar(mountedScript)}},
	}
	if order.Agent == nil && !dfs.ReadOnly {
		sidecar.Lifecycle.PostStart.Exec = inSidecar(mountedScript, order.TaskID)
		sidecar.Lifecycle.PreStop = &corev1.LifecycleHandler{Exec: inSidecar(leaveScript, order.TaskID, string(dfs.KeepWork))}
		nameWork(main, order, dfs)
	}
	// The client has a process that watches the one that mounts, and starts it
	// anew. It looks into the mount for that, with the mount's own device open:
	// where Redis is silent it waits there, and once both are killed nothing ends
	// that any more, nor whoever else waits for the mount. The pod would never go.
	// With this it is one process, whose end ends all waiting; that would leave
	// out --check-storage too.
	sidecar.Env = []corev1.EnvVar{{Name: "JFS_SUPERVISOR", Value: "1"}}
	if password != "" {
		sidecar.Env = append(sidecar.Env, secretEnv(order, "META_PASSWORD", dfsPasswordKey))
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: dfsVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, sidecar)
	main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: dfsVolume, MountPath: dfs.Path, MountPropagation: ptr(corev1.MountPropagationHostToContainer)})
}

// nameWork tells a plain task's program its working folder.
func nameWork(main *corev1.Container, order engine.Order, dfs *berth.DFS) {
	main.Env = append([]corev1.EnvVar{{Name: "BERTH_WORK", Value: path.Join(dfs.Path, berth.DFSWork, order.TaskID)}}, main.Env...)
}

// probe runs a script in the sidecar. Times are in seconds.
func probe(timeout, period, failures int32, script string, args ...string) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: inSidecar(script, args...)}, TimeoutSeconds: timeout, PeriodSeconds: period, FailureThreshold: failures}
}

// inSidecar runs a script whose $1 is the mount.
func inSidecar(script string, args ...string) *corev1.ExecAction {
	return &corev1.ExecAction{Command: append([]string{"sh", "-c", script, "berth", dfsShare}, args...)}
}

// DFSAddress returns where the metadata of a JuiceFS is, without its password, and that.
func DFSAddress(dfs *berth.DFS) (address, password string) {
	u, err := url.Parse(dfs.URL.Reveal())
	if err != nil || u.User == nil {
		return dfs.URL.Reveal(), ""
	}
	password, _ = u.User.Password()
	u.User = url.User(u.User.Username())
	if u.User.Username() == "" {
		u.User = nil
	}
	return u.String(), password
}
