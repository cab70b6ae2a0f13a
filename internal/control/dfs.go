package control

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rs/xid"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/kube"
)

// formatLimit bounds how long making a volume may take, with the pull of the image.
const formatLimit = 3 * time.Minute

// formatScript makes a volume where there is none. Its exit code says what it found.
//
// $1: the metadata's URL, $2: the volume's name, then options of juicefs format.
const formatScript = `said=$(timeout 15 juicefs status "$1" 2>&1) && exit 20
case $said in
*"not formatted"*) ;;
"") echo "the metadata server gave no answer within 15 s" >&2; exit 21 ;;
*) echo "$said" | tail -n 3 >&2; exit 21 ;;
esac
url=$1 name=$2; shift 2
juicefs format "$@" "$url" "$name" || exit 22
`

// What formatScript found.
const (
	formatExists = 20 + iota
	formatNoMetadata
	formatRefused
)

var volumeName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

func (h *Host) FormatDFS(ctx context.Context, f berth.DFSFormat) (berth.DFSVolume, error) {
	none := berth.DFSVolume{}
	caller := h.caller(ctx)
	if !caller.MayAdminister() {
		return none, needs(caller, berth.RoleAdmin, "make the volume of a shared filesystem")
	}
	entry, err := h.entryFor(caller, berth.RoleAdmin, f.Infrastructure)
	if err != nil {
		return none, err
	}
	switch {
	case entry.DFS == nil:
		return none, berth.Errorf(berth.CodeInvalid, "infrastructure %s has no shared filesystem: write mount_dfs: redis://HOST:PORT/1 into its entry in infra.yml first", entry.Name)
	case entry.DFS.Claim != "":
		return none, berth.Errorf(berth.CodeInvalid, "infrastructure %s shares the claim %s, which needs no volume to be made", entry.Name, entry.DFS.Claim)
	}
	volume, order, err := formatOrder(entry, f)
	if err != nil {
		return none, err
	}
	entry.DFS = nil // there is none to be mounted yet
	if err := h.behind(ctx, entry, &order); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, formatLimit)
	defer cancel()
	to, err := h.connect(entry, order.Instance)
	if err != nil {
		return none, err
	}
	defer to.close()
	outcome, started, err := runOnce(ctx, to, order, formatLimit)
	if err != nil {
		var refusal *engine.Refusal
		if errors.As(err, &refusal) && refusal.Diagnosis != nil {
			return none, unformatted(volume, refusal.Diagnosis)
		}
		return none, err
	}
	if outcome.ExitCode != nil && started {
		switch *outcome.ExitCode {
		case 0:
			return volume, nil
		case formatExists:
			return none, berth.Errorf(berth.CodeConflict, "there is a volume at %s already, and nothing of it was touched; tasks of %s mount it as it is", volume.Address, volume.Infrastructure)
		case formatNoMetadata:
			return none, berth.Errorf(berth.CodeUnavailable, "the metadata server at %s can't be used from a pod: %s", volume.Address, said(outcome.Diagnosis))
		case formatRefused:
			return none, berth.Errorf(berth.CodeInvalid, "the volume could not be made with its blocks in %s %s: %s", volume.Storage, volume.Bucket, said(outcome.Diagnosis))
		}
	}
	return none, unformatted(volume, outcome.Diagnosis)
}

func unformatted(v berth.DFSVolume, d *berth.Diagnosis) error {
	if d == nil {
		return berth.Errorf(berth.CodeUnavailable, "the volume at %s was not made: the pod that should have made it ended without a word", v.Address)
	}
	return berth.Errorf(berth.CodeUnavailable, "the volume at %s was not made: %s What to do: %s", v.Address, d.Summary, d.Remedy.Text)
}

// jfsLine is a line of the JuiceFS client that says why it gave up.
var jfsLine = regexp.MustCompile(`<FATAL>: (.*?)(?: \[\w+@[\w.]+:\d+\])?$`)

// said is what the client said last.
func said(d *berth.Diagnosis) string {
	if d == nil {
		return "it does not say why"
	}
	for _, e := range d.Evidence {
		lines := strings.Split(strings.TrimSpace(e.Text), "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			if m := jfsLine.FindStringSubmatch(strings.TrimSpace(lines[i])); m != nil {
				return m[1]
			}
		}
		if text := strings.TrimSpace(lines[len(lines)-1]); text != "" {
			return text
		}
	}
	return d.Summary
}

// formatOrder is the pod that makes a volume.
func formatOrder(entry berth.InfrastructureConfig, f berth.DFSFormat) (berth.DFSVolume, engine.Order, error) {
	address, password := kube.DFSAddress(entry.DFS)
	v := berth.DFSVolume{Infrastructure: entry.Name, Name: f.Volume, Address: address, Storage: f.Storage, Bucket: f.Bucket}
	if v.Name == "" {
		v.Name = entry.Name
	}
	if !volumeName.MatchString(v.Name) {
		return v, engine.Order{}, berth.Errorf(berth.CodeInvalid, "volume name %q: 3 to 63 lower-case letters, digits and hyphens", v.Name)
	}
	secretKey := f.SecretKey
	access := f.AccessKey
	switch {
	case v.Storage == "" && v.Bucket != "":
		return v, engine.Order{}, berth.Errorf(berth.CodeInvalid, "bucket %s: say what kind of storage it is, such as s3 or minio", v.Bucket)
	case v.Storage == "":
		bucket, user, err := beside(address)
		if err != nil {
			return v, engine.Order{}, err
		}
		v.Storage, v.Bucket, access, secretKey = "redis", bucket, user, berth.Secret(password)
	case v.Bucket == "":
		return v, engine.Order{}, berth.Errorf(berth.CodeInvalid, "storage %s: say where it is: a bucket such as http://minio.example:9000/berth", v.Storage)
	}
	if u, err := url.Parse(v.Bucket); err == nil && u.User != nil {
		return v, engine.Order{}, berth.Errorf(berth.CodeInvalid, "the bucket's address must not hold a login: give the access key and the secret key beside it")
	}
	args := []string{address, v.Name, "--storage", v.Storage, "--bucket", v.Bucket}
	if f.Capacity != "" {
		bytes, err := f.Capacity.Bytes()
		if err != nil || bytes < 1<<30 {
			return v, engine.Order{}, berth.Errorf(berth.CodeInvalid, "capacity %q: a quantity of 1Gi or more", f.Capacity)
		}
		args = append(args, "--capacity", strconv.FormatInt(bytes>>30, 10))
	}
	if f.Inodes < 0 {
		return v, engine.Order{}, berth.Errorf(berth.CodeInvalid, "inodes %d: how many files and directories the volume may hold; 0 for no limit", f.Inodes)
	} else if f.Inodes > 0 {
		args = append(args, "--inodes", strconv.FormatInt(f.Inodes, 10))
	}
	id := xid.New().String()
	order := engine.Order{
		Instance: "format-" + id, TaskID: id, Attempt: 1, Pod: "berth-format-" + id,
		Spec: berth.TaskSpec{
			Image: entry.DFS.Image, Entrypoint: append([]string{"sh", "-c", formatScript, "format"}, args...), Timeout: formatLimit,
			CPU: entry.Defaults.CPU, Memory: entry.Defaults.Memory,
		},
	}
	for _, s := range []engine.SecretVar{{Name: "META_PASSWORD", Value: berth.Secret(password)}, {Name: "ACCESS_KEY", Value: berth.Secret(access)}, {Name: "SECRET_KEY", Value: secretKey}} {
		if s.Value != "" {
			order.SecretEnv = append(order.SecretEnv, s)
		}
	}
	return v, order, nil
}

// beside is the database after the one of the metadata, and the user of both.
func beside(address string) (bucket, user string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", "", err
	}
	number := 0
	if text := strings.Trim(u.Path, "/"); text != "" {
		if number, err = strconv.Atoi(text); err != nil || number < 0 || number > 14 {
			return "", "", berth.Errorf(berth.CodeInvalid, "there is no database after %s for the blocks: say where they are kept with a storage and a bucket", address)
		}
	}
	if user = u.User.Username(); user == "" {
		user = "default"
	}
	u.User = nil
	u.Path = fmt.Sprintf("/%d", number+1)
	return u.String(), user, nil
}
