// Package kubeconfig makes what Berth needs in a namespace, and a kubeconfig
// for it: Namespace, ServiceAccount, Role, RoleBinding and a token. The rights
// come from package permissions, those of whoever runs it from their own
// kubeconfig. It is run once by a cluster's engineer; Berth itself never uses
// these rights.
package kubeconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/permissions"
)

// account is the name of the ServiceAccount, its Role and its RoleBinding.
const account = permissions.Account

// minTTL is Kubernetes' own least life of a token.
const minTTL = 10 * time.Minute

// Options say what to make. The zero value is what the command makes without flags.
type Options struct {
	Namespace       string        // default berth
	Output          string        // default ./kubeconfig; "-" is standard output
	Profiles        []string      // beside tasks, which is always granted
	TTL             time.Duration // of the token; 0: it doesn't expire
	NoRenewal       bool          // the token ends with its TTL, and Berth can't renew it
	DryRun          bool          // print the manifests, contact no cluster
	Rotate          bool          // a new token; those before stop working
	Revoke          bool          // take back what was granted, and write nothing
	Force           bool          // overwrite Output
	AdminKubeconfig string        // default KUBECONFIG, then ~/.kube/config
	AdminContext    string        // default its current one
}

// creation is one run of Create.
type creation struct {
	Options
	profiles  []permissions.Profile
	stderr    io.Writer
	admin     *admin
	client    kubernetes.Interface
	accountID string // UID of the ServiceAccount
	token     string
	old       []string // names of Secrets that a rotation replaces
	output    *output

	podSecurity string // what the namespace enforces, where that is known
}

// Create makes what is missing, corrects what differs, and writes the
// kubeconfig; with Revoke it takes back what it made. It may be run again.
// Nothing is created when the file exists already (CodeConflict) or something
// is wrong with the options (CodeInvalid).
func Create(ctx context.Context, options Options, stdout, stderr io.Writer) error {
	c, err := newCreation(options, stderr)
	if err != nil {
		return err
	}
	if c.DryRun {
		return writeManifests(stdout, c.Namespace, c.profiles, c.TTL == 0)
	}
	if !c.Revoke {
		if c.output, err = openOutput(c.Output, c.Force, stdout); err != nil {
			return err
		}
		defer c.output.discard()
	}
	if c.admin, err = loadAdmin(c.AdminKubeconfig, c.AdminContext); err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(c.admin.config); err != nil {
		return berth.Errorf(berth.CodeInvalid, "your kubeconfig can't be used: %w", err)
	}
	if c.Revoke {
		return c.revoke(ctx)
	}
	if err := c.output.mayReplace(c.admin.files); err != nil {
		return err
	}
	return c.run(ctx)
}

func newCreation(options Options, stderr io.Writer) (*creation, error) {
	c := &creation{Options: options, stderr: stderr}
	if c.Namespace == "" {
		c.Namespace = "berth"
	}
	if c.Output == "" {
		c.Output = "./kubeconfig"
	}
	if !regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`).MatchString(c.Namespace) {
		return nil, berth.Errorf(berth.CodeInvalid, "namespace %q: a name is at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit", c.Namespace)
	}
	if c.TTL != 0 && c.TTL < minTTL {
		return nil, berth.Errorf(berth.CodeInvalid, "--ttl %s: Kubernetes gives tokens for 10m or longer", c.TTL)
	}
	switch {
	case c.NoRenewal && c.TTL == 0:
		return nil, berth.Errorf(berth.CodeInvalid, "--no-renewal is about a token that expires: add --ttl, such as --ttl 24h")
	case c.Revoke && (c.TTL != 0 || c.Rotate || c.DryRun):
		return nil, berth.Errorf(berth.CodeInvalid, "--revoke takes everything back and makes nothing: it goes with none of --ttl, --rotate and --dry-run")
	}
	var err error
	if c.profiles, err = permissions.ParseProfiles(c.Options.Profiles); err != nil {
		return nil, berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	if c.TTL > 0 && !c.NoRenewal {
		c.profiles = append(c.profiles, permissions.Renewal)
	}
	return c, nil
}

// step is one thing to be done, which says what it found or did.
type step struct {
	what string
	do   func(context.Context) (string, error)
}

func (c *creation) run(ctx context.Context) error {
	err := c.each(ctx, []step{
		{"namespace " + c.Namespace, c.namespace},
		{"service account " + account, c.serviceAccount},
		{"role " + account, c.role},
		{"role binding " + account, c.roleBinding},
		{"token", c.makeToken},
		{"kubeconfig " + c.Output, c.write},
		{"tokens before", c.withdraw},
	})
	if err == nil {
		c.advise()
	}
	return err
}

// each does one step after the other.
func (c *creation) each(ctx context.Context, steps []step) error {
	for _, step := range steps {
		said, err := step.do(ctx)
		if err != nil {
			return c.explain(step.what, err)
		}
		if said != "" {
			fmt.Fprintf(c.stderr, "%s: %s\n", step.what, said)
		}
	}
	return nil
}

// advise says what was handed out, and what to do with it.
func (c *creation) advise() {
	fmt.Fprintf(c.stderr, `
Whoever has this file may create pods in the namespace %[1]s, and whoever may create
pods in a namespace can, through them, read its Secrets and ConfigMaps and act as its
ServiceAccounts. Keep nothing in %[1]s that its users must not have: give Berth a
namespace of its own.
`, c.Namespace)
	switch {
	case c.NoRenewal:
		fmt.Fprintf(c.stderr, "The token can't be renewed: run this again before it expires. Berth takes up the new file by itself.\n")
	case c.TTL > 0:
		fmt.Fprintf(c.stderr, "Berth renews the token by itself, each time that half of its life is over; one that nobody uses for %s ends.\nWhoever has it can do so until you say --revoke or --rotate; with --no-renewal nobody can.\n", c.TTL)
	}
	if level := c.podSecurity; slices.Contains(c.profiles, permissions.Proxy) && (level == "baseline" || level == "restricted") {
		fmt.Fprintf(c.stderr, "The namespace enforces Pod Security %s, which forbids what a task behind a proxy needs (NET_ADMIN in an init container):\nkubectl label namespace %s %s=privileged --overwrite\n", level, c.Namespace, enforced)
	}
	if c.admin.local() {
		fmt.Fprintf(c.stderr, "The server is %s: the file is of use on this machine only.\n", c.admin.cluster.Server)
	}
	file := c.Output
	if file == "-" {
		file = "FILE"
	}
	fmt.Fprintf(c.stderr, "\nNext: berth infra add NAME --kubeconfig %s\n", shellWord(file))
}

// explain makes an error of the API server one for a person.
func (c *creation) explain(what string, err error) error {
	var told *berth.Error
	switch {
	case errors.As(err, &told):
		return err
	case apierrors.IsUnauthorized(err):
		return berth.Errorf(berth.CodeUnauthorized, "%s: %s does not accept your own kubeconfig's credentials (401); log in again: %w", what, c.admin.cluster.Server, err)
	case apierrors.IsForbidden(err):
		return berth.Errorf(berth.CodeForbidden, "%s: your own kubeconfig may not do this; give the cluster's engineer what berth create-kubeconfig -n %s --dry-run prints, or choose another context with --context: %w", what, c.Namespace, err)
	case apierrors.IsNotFound(err):
		return berth.Errorf(berth.CodeNotFound, "%s: %w; does the namespace exist, and may you create it?", what, err)
	case errors.Is(err, context.DeadlineExceeded), apierrors.ReasonForError(err) == "":
		return berth.Errorf(berth.CodeUnavailable, "%s: the server %s of your kubeconfig (context %s) can't be reached, or does not answer: %w", what, c.admin.cluster.Server, c.admin.context, err)
	}
	return berth.Errorf(berth.CodeUnavailable, "%s: %w", what, err)
}

// shellWord quotes a file name for a shell where that is needed.
func shellWord(word string) string {
	if strings.ContainsAny(word, " \t\n'\"\\$`!*?[]{}()<>|&;#~") {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}
