package main

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"grindstone/auth"
	"grindstone/internal/loopback"
	"grindstone/registry"
)

// UpstreamConfig names the registry behind this one.
type UpstreamConfig struct {
	URL      string // "" is the embedded registry
	Username string // of the server itself
	Password string // path of the file that holds the password; "" is GRINDSTONE_UPSTREAM_PASSWORD
	CA       string // path of PEM authorities
	Cert     string // paths of a client certificate
	Key      string
}

// AuthConfig says who may do what.
type AuthConfig struct {
	Htpasswd    string       // path of user:bcrypt lines
	OIDC        []OIDCConfig // issuers whose tokens are taken
	Roles       []RoleConfig
	Anonymous   string // role of who does not log in; "": what loopback may do where there are no logins, else none
	PassThrough bool   // credentials go to the upstream, which decides
}

// OIDCConfig is an issuer of tokens.
type OIDCConfig struct {
	Issuer, Audience string
	Identity, Groups string // claims
	Prefix           string // of its users and groups; "": oidc: and none
	CA               string // path of PEM authorities
}

// RoleConfig gives identities a role in repositories.
type RoleConfig struct {
	Who          []string
	Repositories []string // patterns as in Intercept
	Role         string
}

// TLSConfig names the server's certificate.
type TLSConfig struct {
	Cert, Key  string // paths; "" is plain HTTP
	ClientCA   string // path of the authorities that sign clients' certificates
	ClientAuth string // optional or require
}

func (c *Config) accessFields(d *decoder) fields {
	return fields{
		"upstream": d.section(fields{
			"url": d.text(&c.Upstream.URL), "username": d.text(&c.Upstream.Username), "password_file": d.path(&c.Upstream.Password),
			"ca": d.path(&c.Upstream.CA), "cert": d.path(&c.Upstream.Cert), "key": d.path(&c.Upstream.Key),
		}),
		"auth": d.section(fields{
			"htpasswd": d.path(&c.Auth.Htpasswd), "anonymous": d.text(&c.Auth.Anonymous), "passthrough": d.boolean(&c.Auth.PassThrough),
			"oidc": list(d, &c.Auth.OIDC, func(o *OIDCConfig) fields {
				return fields{
					"issuer": d.text(&o.Issuer), "audience": d.text(&o.Audience), "identity_claim": d.text(&o.Identity),
					"groups_claim": d.text(&o.Groups), "prefix": d.text(&o.Prefix), "ca": d.path(&o.CA),
				}
			}),
			"roles": list(d, &c.Auth.Roles, func(r *RoleConfig) fields {
				return fields{"who": d.texts(&r.Who), "repositories": d.texts(&r.Repositories), "role": d.text(&r.Role)}
			}),
		}),
		"tls": d.section(fields{
			"cert": d.path(&c.TLS.Cert), "key": d.path(&c.TLS.Key), "client_ca": d.path(&c.TLS.ClientCA), "client_auth": d.text(&c.TLS.ClientAuth),
		}),
	}
}

// checkAccess finds what is wrong with upstream, auth and tls.
func (c Config) checkAccess(bad func(field, format string, args ...any)) {
	readable := func(field, path string) {
		if path == "" {
			return
		}
		if f, err := os.Open(path); err != nil {
			bad(field, "cannot be read: %v", err)
		} else {
			f.Close()
		}
	}
	both := func(one, a, other, b string) {
		if a == "" && b != "" {
			bad(one, "is needed with %s", other)
		}
	}
	u := c.Upstream
	if u.URL != "" {
		if err := registry.CheckURL(u.URL); err != nil {
			bad("upstream.url", "%v", err)
		}
	}
	for field, path := range map[string]string{"password_file": u.Password, "ca": u.CA, "cert": u.Cert, "key": u.Key} {
		readable("upstream."+field, path)
	}
	both("upstream.url", u.URL, "upstream.username", u.Username)
	both("upstream.username", u.Username, "upstream.password_file", u.Password)
	both("upstream.cert", u.Cert, "upstream.key", u.Key)
	both("upstream.key", u.Key, "upstream.cert", u.Cert)

	t := c.TLS
	for field, path := range map[string]string{"cert": t.Cert, "key": t.Key, "client_ca": t.ClientCA} {
		readable("tls."+field, path)
	}
	both("tls.cert", t.Cert, "tls.key", t.Key)
	both("tls.key", t.Key, "tls.cert", t.Cert)
	both("tls.cert", t.Cert, "tls.client_ca", t.ClientCA)
	if !slices.Contains([]string{"optional", "require"}, t.ClientAuth) {
		bad("tls.client_auth", "%q is not one of optional, require", t.ClientAuth)
	}

	a := c.Auth
	readable("auth.htpasswd", a.Htpasswd)
	issuers := c.authentication().OIDC
	for i, o := range a.OIDC {
		at := fmt.Sprintf("auth.oidc[%d]", i)
		readable(at+".ca", o.CA)
		if o.Audience == "" {
			bad(at+".audience", "is needed: without one, tokens for others would be taken")
		}
		if issuer, err := url.Parse(o.Issuer); err != nil || issuer.Host == "" {
			bad(at+".issuer", "%q is not a URL", o.Issuer)
		}
		if err := auth.CheckPrefix(issuers, i); err != nil {
			bad(at+".prefix", "%v", err)
		}
	}
	roles := []string{string(auth.Pull), string(auth.Push), string(auth.Operator)}
	for i, r := range a.Roles {
		at := fmt.Sprintf("auth.roles[%d]", i)
		if len(r.Who) == 0 || len(r.Repositories) == 0 {
			bad(at, "needs who and repositories")
		}
		if !slices.Contains(roles, r.Role) {
			bad(at+".role", "%q is not one of %s", r.Role, strings.Join(roles, ", "))
		}
		for _, pattern := range r.Repositories {
			if _, err := repositoryPattern(pattern); err != nil {
				bad(at+".repositories", "%v", err)
			}
		}
	}
	if a.Anonymous != "" && !slices.Contains(roles[:2], a.Anonymous) {
		bad("auth.anonymous", "%q is not one of %s", a.Anonymous, strings.Join(roles[:2], ", "))
	}
	switch {
	case a.PassThrough && u.URL == "":
		bad("auth.passthrough", "needs upstream.url")
	case a.PassThrough && c.logins():
		bad("auth.passthrough", "logins of this server and of the upstream exclude each other: leave out htpasswd, oidc and client_ca")
	case c.logins() && len(a.Roles) == 0:
		bad("auth.roles", "nobody who logs in may do anything: give roles")
	case !c.logins() && len(a.Roles) > 0:
		bad("auth.roles", "nobody can log in: set htpasswd, oidc or tls.client_ca")
	}
	if c.logins() && c.TLS.Cert == "" && !c.onLoopback() {
		bad("tls.cert", "is needed to take passwords and tokens on %s: they would pass in clear text", c.Listen)
	}
}

// logins reports whether this server checks credentials itself.
func (c Config) logins() bool {
	return c.Auth.Htpasswd != "" || len(c.Auth.OIDC) > 0 || c.TLS.ClientCA != ""
}

// onLoopback reports whether only this machine can connect.
func (c Config) onLoopback() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	return err == nil && loopback.Host(host)
}

// passThrough reports whether the upstream decides who may do what: where there is one and nobody logs in here.
func (c Config) passThrough() bool {
	return c.Upstream.URL != "" && !c.logins() && (c.Auth.PassThrough || c.Upstream.Username == "" && c.Auth.Anonymous == "")
}

// whoMay says in a few words who may use the server.
func (c Config) whoMay() string {
	var ways []string
	for way, given := range map[string]bool{
		"htpasswd users": c.Auth.Htpasswd != "", "OIDC tokens": len(c.Auth.OIDC) > 0, "client certificates": c.TLS.ClientCA != "",
		"anonymous clients " + c.Auth.Anonymous: c.Auth.Anonymous != "", "whom the upstream lets": c.passThrough(),
	} {
		if given {
			ways = append(ways, way)
		}
	}
	if len(ways) == 0 {
		return "anybody on this machine, nobody else"
	}
	slices.Sort(ways)
	return strings.Join(ways, ", ")
}

// upstream is the registry's part of the configuration.
func (c Config) upstream() (registry.Upstream, error) {
	u := c.Upstream
	password := os.Getenv("GRINDSTONE_UPSTREAM_PASSWORD")
	if u.Password != "" {
		data, err := os.ReadFile(u.Password)
		if err != nil {
			return registry.Upstream{}, fmt.Errorf("upstream.password_file: %w", err)
		}
		password = strings.TrimRight(string(data), "\r\n")
	}
	return registry.Upstream{
		URL: u.URL, Username: u.Username, Password: password, CAFile: u.CA, CertFile: u.Cert, KeyFile: u.Key, PassThrough: c.passThrough(),
	}, nil
}

// authentication is the logins' part of the configuration.
func (c Config) authentication() auth.Config {
	a := auth.Config{Htpasswd: c.Auth.Htpasswd, Anonymous: auth.Role(c.Auth.Anonymous), Loopback: !c.logins()}
	for _, o := range c.Auth.OIDC {
		a.OIDC = append(a.OIDC, auth.OIDC{
			Issuer: o.Issuer, Audience: o.Audience, IdentityClaim: cmp.Or(o.Identity, "sub"), GroupsClaim: o.Groups, CAFile: o.CA, Prefix: o.Prefix,
		})
	}
	for _, r := range c.Auth.Roles {
		a.Rules = append(a.Rules, auth.Rule{Who: r.Who, Repositories: repositoryMatcher(r.Repositories), Role: auth.Role(r.Role)})
	}
	return a
}
