// An OpenID Connect provider for the tests: the certified `oidc-provider`, with its login form that
// takes any name. Prints one line of JSON when it listens.
//
//   node oidc_provider.mjs PACKAGE IP CERTIFICATE KEY REDIRECT_URI CLIENT_SECRET GROUPS
//
// PACKAGE is the installed package's folder; GROUPS a file of JSON that says the groups of each
// user, read anew at each sign-in.

import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { pathToFileURL } from "node:url";

const [folder, ip, certificate, key, redirectUri, clientSecret, groups] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(`${folder}/lib/index.js`));

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
server.listen(0, ip, () => {
  const issuer = `https://${ip}:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "adit-control",
        client_secret: clientSecret,
        redirect_uris: [redirectUri],
        grant_types: ["authorization_code"],
        response_types: ["code"],
      },
    ],
    scopes: ["openid", "profile", "groups"],
    claims: { openid: ["sub"], profile: ["preferred_username"], groups: ["groups"] },
    // Claims stand in the ID token.
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    cookies: { keys: ["tests"] },
    async findAccount(_context, id) {
      const claims = () => ({
        sub: `subject of ${id}`,
        preferred_username: id,
        groups: JSON.parse(readFileSync(groups, "utf8"))[id] ?? [],
      });
      return { accountId: id, claims };
    },
  });
  server.on("request", provider.callback());
  console.log(JSON.stringify({ event: "listening", issuer }));
});
