package kubeconfig

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// output is the file to be. It is opened before anything is created, so that a
// full disk or a missing folder leaves no rights behind that nobody uses.
type output struct {
	path      string
	force     bool
	temporary *os.File
	stdout    io.Writer // instead of a file
}

func openOutput(path string, force bool, stdout io.Writer) (*output, error) {
	if path == "-" {
		return &output{stdout: stdout}, nil
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, berth.Errorf(berth.CodeInvalid, "%s is a folder; name a file with -o", path)
	case err == nil && !force:
		return nil, berth.Errorf(berth.CodeConflict, "%s exists already, and is not overwritten; choose another file with -o, or overwrite it with --force", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, berth.Errorf(berth.CodeInvalid, "the kubeconfig can't be written: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".kubeconfig-*") // mode 0600
	if err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "the kubeconfig can't be written: %w", err)
	}
	return &output{path: path, force: force, temporary: temporary}, nil
}

// mayReplace refuses to overwrite the kubeconfig that is in use: it would cost
// an engineer the access to the cluster.
func (o *output) mayReplace(files []string) error {
	target, err := os.Stat(o.path)
	if o.temporary == nil || err != nil {
		return nil //nolint:nilerr // what isn't there, or isn't written, replaces nothing
	}
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && os.SameFile(info, target) {
			return berth.Errorf(berth.CodeConflict, "%s is your own kubeconfig, and is not overwritten; choose another file with -o", o.path)
		}
	}
	return nil
}

func (o *output) write(data []byte) error {
	if o.stdout != nil {
		_, err := o.stdout.Write(data)
		return err
	}
	_, err := o.temporary.Write(data)
	if err == nil {
		err = o.temporary.Sync()
	}
	if closeErr := o.temporary.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if o.force {
		return os.Rename(o.temporary.Name(), o.path)
	}
	// A link, unlike a rename, fails when the file has come into being meanwhile.
	err = os.Link(o.temporary.Name(), o.path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	file, err := os.OpenFile(o.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // a file system without links
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// discard removes what is left of an attempt.
func (o *output) discard() {
	if o.temporary != nil {
		_ = o.temporary.Close()
		_ = os.Remove(o.temporary.Name())
	}
}

// write makes the kubeconfig and puts it into its place.
func (c *creation) write(context.Context) (string, error) {
	config := api.NewConfig()
	config.Clusters[c.admin.name] = &api.Cluster{
		Server: c.admin.cluster.Server, CertificateAuthorityData: c.admin.ca,
		TLSServerName: c.admin.cluster.TLSServerName, ProxyURL: c.admin.cluster.ProxyURL,
	}
	config.AuthInfos[account] = &api.AuthInfo{Token: c.token}
	config.Contexts[c.Namespace] = &api.Context{Cluster: c.admin.name, AuthInfo: account, Namespace: c.Namespace}
	config.CurrentContext = c.Namespace
	data, err := clientcmd.Write(*config)
	if err == nil {
		err = c.output.write(data)
	}
	if err != nil {
		return "", berth.Errorf(berth.CodeInvalid, "the kubeconfig can't be written; what was made in the cluster stays, so run this again: %w", err)
	}
	if c.output.stdout != nil {
		return "", nil
	}
	return "written, mode 0600", nil
}
