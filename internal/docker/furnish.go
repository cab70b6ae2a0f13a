package docker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/engine"
)

const (
	reportPath  = agent.Dir + "/report" // where the agent leaves its report
	reportLimit = 16 << 20              // bytes of it that are read
)

// agentOrder is the order of an attempt's agent, with what this driver adds.
func agentOrder(order engine.Order) agent.Order {
	o := order.Agent.Order
	o.Message = agent.Message{Path: reportPath}
	if o.Call != nil && len(order.Agent.Secrets) > 0 {
		call := *o.Call
		call.Secrets = map[string]string{}
		maps.Copy(call.Secrets, o.Call.Secrets)
		for i, s := range order.Agent.Secrets {
			call.Secrets[s.Input] = "file:" + secretPath(i)
		}
		o.Call = &call
	}
	return o
}

func secretPath(i int) string { return agent.SecretsDir + "/" + strconv.Itoa(i) }

// hasAgent reports whether the agent is a container's program.
func hasAgent(c *container.InspectResponse) bool {
	return c.Config != nil && len(c.Config.Entrypoint) == 1 && c.Config.Entrypoint[0] == agent.Path
}

// furnish puts into a container what its agent needs: a directory where it may
// write its report, the agent itself where the image doesn't have it, and the
// values of secret inputs.
func (d *Driver) furnish(ctx context.Context, id string, order engine.Order, image imageFacts) error {
	uid, gid, err := d.runsAs(ctx, id, cmp.Or(order.Spec.User, image.user))
	if err != nil {
		return err
	}
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	add := func(name string, mode int64, kind byte, data []byte) error {
		err := w.WriteHeader(&tar.Header{Typeflag: kind, Name: strings.TrimPrefix(name, "/"), Mode: mode, Size: int64(len(data)), Uid: uid, Gid: gid, ModTime: time.Unix(0, 0)})
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	}
	err = add(agent.Dir+"/", 0o755, tar.TypeDir, nil)
	if err == nil && order.Agent.Inject {
		var program []byte
		if program, err = order.Agent.Binary(image.platform); err != nil {
			return err
		}
		err = add(agent.Path, 0o755, tar.TypeReg, program)
	}
	if err == nil && len(order.Agent.Secrets) > 0 {
		err = add(agent.SecretsDir+"/", 0o700, tar.TypeDir, nil)
	}
	for i, s := range order.Agent.Secrets {
		if err == nil {
			err = add(secretPath(i), 0o400, tar.TypeReg, []byte(s.Value.Reveal()))
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return err
	}
	_, err = d.client.api.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: &content})
	return err
}

// runsAs finds out the numbers of the user that a container runs as, which an
// image may name by what stands in its own /etc/passwd and /etc/group.
func (d *Driver) runsAs(ctx context.Context, id, user string) (uid, gid int, err error) {
	name, group, grouped := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	uid, err = strconv.Atoi(name)
	if err != nil {
		fields, err := d.entry(ctx, id, "/etc/passwd", name, 4)
		if err != nil {
			return 0, 0, err
		}
		uid, _ = strconv.Atoi(fields[2])
		gid, _ = strconv.Atoi(fields[3])
	}
	if !grouped {
		return uid, gid, nil
	}
	if gid, err = strconv.Atoi(group); err != nil {
		fields, err := d.entry(ctx, id, "/etc/group", group, 3)
		if err != nil {
			return 0, 0, err
		}
		gid, _ = strconv.Atoi(fields[2])
	}
	return uid, gid, nil
}

// entry returns the line of a name in a file such as /etc/passwd.
func (d *Driver) entry(ctx context.Context, id, file, name string, count int) ([]string, error) {
	data, err := d.readFile(ctx, id, file, 1<<20)
	if err == nil {
		lines := bufio.NewScanner(bytes.NewReader(data))
		for lines.Scan() {
			if fields := strings.Split(lines.Text(), ":"); len(fields) >= count && fields[0] == name {
				return fields, nil
			}
		}
	}
	// In the words of the runtime, which would find out at the start.
	return nil, errNoUser(fmt.Sprintf("unable to find user %s: no matching entries in %s", name, path.Base(file)))
}

// readFile reads a file of a container, also of one that has ended.
func (d *Driver) readFile(ctx context.Context, id, file string, limit int64) ([]byte, error) {
	result, err := d.client.api.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: file})
	if err != nil {
		return nil, err
	}
	defer result.Content.Close()
	r := tar.NewReader(result.Content)
	if _, err := r.Next(); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, limit))
}
