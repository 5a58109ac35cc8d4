githubrunner is deployed as job githubrunner in namespace [[ var "namespace" . ]].

Its configuration is the item `config` of the Nomad variable nomad/jobs/githubrunner[[ if eq (var "token_source" .) "variable" ]], its GitHub token the item `token`[[ end ]]:

  nomad var put -namespace [[ var "namespace" . ]] nomad/jobs/githubrunner config=@config.yml[[ if eq (var "token_source" .) "variable" ]] token=@token[[ end ]]

Grant it its rights, once per cluster:

  nomad acl policy apply -namespace [[ var "namespace" . ]] -job githubrunner githubrunner nomad/githubrunner.policy.hcl

What it would do now, and its log:

  nomad action -namespace [[ var "namespace" . ]] -job githubrunner -group githubrunner -task githubrunner plan
  nomad alloc logs -namespace [[ var "namespace" . ]] -job -stderr -f githubrunner
