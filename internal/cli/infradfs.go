package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

func (a *app) infraDFSCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dfs", Short: "The shared filesystem of an infrastructure (mount_dfs)",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.infraDFSInitCommand())
	return cmd
}

func (a *app) infraDFSInitCommand() *cobra.Command {
	var format berth.DFSFormat
	var capacity, keyFile string
	cmd := &cobra.Command{
		Use: "init [NAME]", Short: "Make the JuiceFS volume that mount_dfs mounts, once",
		Long: "Make the JuiceFS volume at the address of mount_dfs, by a pod of the namespace, as only that may reach it. A volume that is there already is never touched. Without --storage the blocks go into the Redis of the metadata, into its next database: they take its memory, so for more than some GiB name a storage.",
		Example: "  berth infra dfs init site-a\n" +
			"  berth infra dfs init site-a --storage minio --bucket http://minio.example:9000/berth --access-key berth --secret-key-file key",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeInfrastructures,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				format.Infrastructure = args[0]
			}
			format.Capacity = berth.Quantity(capacity)
			if keyFile != "" {
				key, err := a.readSecret(keyFile)
				if err != nil {
					return err
				}
				format.SecretKey = key
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				volume, err := service.FormatDFS(ctx, format)
				if err != nil {
					return err
				}
				return a.printTo(a.stdout, volume, func(w io.Writer) {
					fmt.Fprintf(w, "made volume %s at %s, its blocks in %s %s\n", volume.Name, volume.Address, volume.Storage, volume.Bucket)
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&format.Volume, "name", "", "of the volume (default: the infrastructure's)")
	flags.StringVar(&format.Storage, "storage", "", "that keeps the blocks: s3, minio, redis, ... (default: the Redis of the metadata)")
	flags.StringVar(&format.Bucket, "bucket", "", "the storage's `URL`")
	flags.StringVar(&format.AccessKey, "access-key", "", "of the storage")
	flags.StringVar(&keyFile, "secret-key-file", "", "`file` with the storage's secret key, or - for standard input")
	flags.StringVar(&capacity, "capacity", "", "how much it may hold, such as 500Gi (default: no limit)")
	flags.Int64Var(&format.Inodes, "inodes", 0, "how many files and directories it may hold (default: no limit)")
	a.outputFlag(cmd)
	return cmd
}

// readSecret reads a secret from a file, or from standard input.
func (a *app) readSecret(path string) (berth.Secret, error) {
	in := a.stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, 64<<10))
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(data), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("%s holds no secret key", path)
	}
	return berth.Secret(secret), nil
}
